//! `POST /v1/responses`: a chat whose turns are items, without a memory of its own.

mod items;
mod request;
mod response;
mod stream;
#[cfg(test)]
mod tests;

pub use request::{ReasoningConfig, ResponsesRequest, ResponsesTool, TextConfig, TextFormat};
pub use response::{
    InputTokensDetails, OutputItem, OutputText, OutputTokensDetails, Response, ResponseError, ResponsesUsage,
    SummaryText,
};
pub use stream::ResponseStream;

/// What the built-in tool is called, by clients and by a model that calls it.
const WEB_SEARCH: &str = "web_search";
