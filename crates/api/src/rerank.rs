//! Reranking, which Ollama does not have: the words of Cohere (versions 1 and 2), Jina and vLLM, which agree but for
//! fields that are passed over here.

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::KeepAlive;
use crate::error::{Error, Result};

/// Cohere advises its callers not to send more; each is a pass through the model.
pub const MAX_DOCUMENTS: usize = 1000;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RerankRequest {
    pub model: String,
    pub query: String,
    pub documents: Documents,
    /// How many results at most; `None` and 0 = all.
    pub top_n: Option<i64>,
    /// `None` means true, but to Cohere's first version; who says nothing can do with more.
    pub return_documents: Option<bool>,
    /// `None` and 0 = as many as the model sees.
    pub max_tokens_per_doc: Option<i64>,
    /// Of Cohere's first version: which fields of a document count. Only `text` does.
    pub rank_fields: Option<Vec<String>>,
    pub keep_alive: Option<KeepAlive>,
    pub options: Option<Map<String, Value>>,
}

/// A list of texts, or of objects with a `text`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Documents(pub Vec<String>);

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RerankResponse {
    pub id: String,
    pub object: &'static str,
    /// As it was asked for.
    pub model: String,
    /// The best first.
    pub results: Vec<RerankResult>,
    /// Where Cohere's clients look for what was used, ...
    pub meta: RerankMeta,
    /// ... and where the others do.
    pub usage: RerankUsage,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RerankResult {
    /// In the request's list.
    pub index: usize,
    pub relevance_score: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<RerankDocument>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RerankDocument {
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RerankMeta {
    pub api_version: ApiVersion,
    pub tokens: RerankTokens,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ApiVersion {
    pub version: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RerankTokens {
    pub input_tokens: u64,
    pub output_tokens: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RerankUsage {
    pub prompt_tokens: u64,
    pub total_tokens: u64,
}

/// The envelope of Cohere's errors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RerankError {
    pub message: String,
}

/// Which form of the route was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    First,
    /// It has no way to ask for the documents; clients read them all the same.
    Second,
}

/// A request that says all that it must, within the bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranking {
    pub top_n: usize,
    pub returns_documents: bool,
    /// 0 = as many as the model sees.
    pub max_tokens_per_document: u32,
}

impl<'de> Deserialize<'de> for Documents {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Documents, D::Error> {
        let wrong = || {
            serde::de::Error::custom(
                "`documents` must be a list of strings, or of objects with a `text` that is one",
            )
        };
        let read = |document: Value| match document {
            Value::String(text) => Ok(text),
            Value::Object(mut fields) => match fields.remove("text") {
                Some(Value::String(text)) => Ok(text),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        };
        match Value::deserialize(deserializer)? {
            Value::Null => Ok(Documents::default()),
            Value::Array(items) => items.into_iter().map(read).collect::<Result<_, _>>().map(Documents),
            _ => Err(wrong()),
        }
    }
}

// === impl RerankRequest ===

impl RerankRequest {
    /// # Errors
    /// The field that is missing or beyond its bound.
    pub fn check(&self, version: Version) -> Result<Ranking> {
        if self.query.is_empty() {
            return Err(Error::invalid("`query` is required"));
        }
        let count = self.documents.0.len();
        if !(1..=MAX_DOCUMENTS).contains(&count) {
            let text = format!("`documents` must have between 1 and {MAX_DOCUMENTS} entries, got {count}");
            return Err(Error::invalid(text));
        }
        if let Some(field) = self.rank_fields.iter().flatten().find(|field| *field != "text") {
            let text = format!(
                "`rank_fields` may only name `text`, got `{field}`: send what is to be ranked as `text`"
            );
            return Err(Error::invalid(text));
        }
        let top_n = match self.top_n.unwrap_or(0) {
            0 => count,
            top_n => usize::try_from(top_n).map_err(|_| negative("top_n", top_n))?.min(count),
        };
        let most = self.max_tokens_per_doc.unwrap_or(0);
        if most < 0 {
            return Err(negative("max_tokens_per_doc", most));
        }
        Ok(Ranking {
            top_n,
            returns_documents: version == Version::Second || self.return_documents.unwrap_or(true),
            max_tokens_per_document: u32::try_from(most).unwrap_or(u32::MAX),
        })
    }
}

fn negative(field: &str, value: i64) -> Error {
    Error::invalid(format!("`{field}` must be 0 or more, got {value}"))
}

// === impl Ranking ===

impl Ranking {
    /// The best of the documents, which have `scores`. Of two that are as good, the earlier comes first.
    pub fn results(&self, documents: Vec<String>, scores: &[f64]) -> Vec<RerankResult> {
        let mut order: Vec<usize> = (0..documents.len().min(scores.len())).collect();
        order.sort_by(|&a, &b| scores[b].partial_cmp(&scores[a]).unwrap_or(Ordering::Equal));
        order.truncate(self.top_n);
        let mut texts: Vec<Option<String>> = documents.into_iter().map(Some).collect();
        let result = |index: usize| RerankResult {
            index,
            relevance_score: scores[index],
            document: texts[index]
                .take()
                .filter(|_| self.returns_documents)
                .map(|text| RerankDocument { text }),
        };
        order.into_iter().map(result).collect()
    }
}

// === impl RerankResponse ===

impl RerankResponse {
    pub fn new(id: String, model: String, version: Version, tokens: u64) -> RerankResponse {
        let version = if version == Version::Second { "2" } else { "1" };
        RerankResponse {
            id,
            object: "list",
            model,
            results: Vec::new(),
            meta: RerankMeta {
                api_version: ApiVersion { version },
                tokens: RerankTokens { input_tokens: tokens, output_tokens: 0 },
            },
            usage: RerankUsage { prompt_tokens: tokens, total_tokens: tokens },
        }
    }
}

impl From<&Error> for RerankError {
    fn from(error: &Error) -> RerankError {
        RerankError { message: error.message.clone() }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gojson;

    fn read(value: Value) -> Result<RerankRequest> {
        gojson::from_slice(value.to_string().as_bytes())
    }

    fn ranking(value: Value) -> Ranking {
        read(value).unwrap().check(Version::First).unwrap()
    }

    #[test]
    fn every_form_of_the_request_is_read() {
        let cohere1 = json!({"model": "m", "query": "q", "documents": [{"text": "a", "title": "t"}, "b"],
            "rank_fields": ["text"], "max_chunks_per_doc": 10, "return_documents": false, "top_n": 1});
        assert_eq!(read(cohere1.clone()).unwrap().documents, Documents(vec!["a".into(), "b".into()]));
        let expected = Ranking { top_n: 1, returns_documents: false, max_tokens_per_document: 0 };
        assert_eq!(ranking(cohere1.clone()), expected);
        assert!(read(cohere1).unwrap().check(Version::Second).unwrap().returns_documents);
        let cohere2 = json!({"model": "m", "query": "q", "documents": ["a"], "max_tokens_per_doc": 4096, "priority": 0});
        let expected = Ranking { top_n: 1, returns_documents: true, max_tokens_per_document: 4096 };
        assert_eq!(ranking(cohere2), expected);
        let jina = json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 9, "return_documents": null});
        assert_eq!(ranking(jina).top_n, 2);
        let vllm = json!({"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 0, "truncate_prompt_tokens": -1});
        assert_eq!(ranking(vllm).top_n, 2);
    }

    #[test]
    fn what_is_missing_or_beyond_its_bound_is_named() {
        let refused = |more: Value| {
            let mut value = json!({"model": "m", "query": "q", "documents": ["a"]});
            value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let checked = read(value).and_then(|request| request.check(Version::First));
            checked.unwrap_err().message
        };
        let many = vec!["a"; MAX_DOCUMENTS + 1];
        for (more, problem) in [
            (json!({"query": ""}), "`query` is required"),
            (json!({"query": null}), "`query` is required"),
            (json!({"documents": []}), "`documents` must have between 1 and 1000 entries, got 0"),
            (json!({"documents": many}), "`documents` must have between 1 and 1000 entries, got 1001"),
            (json!({"top_n": -1}), "`top_n` must be 0 or more, got -1"),
            (json!({"max_tokens_per_doc": -2}), "`max_tokens_per_doc` must be 0 or more, got -2"),
            (json!({"rank_fields": ["text", "title"]}), "`rank_fields` may only name `text`, got `title`"),
        ] {
            let found = refused(more);
            assert!(found.starts_with(problem), "{found}");
        }
        for documents in
            [json!("a"), json!([1]), json!([{"title": "a"}]), json!([{"text": 1}]), json!({"text": "a"})]
        {
            let text = refused(json!({"documents": documents}));
            assert!(text.contains("`documents` must be a list of strings"), "{text}");
        }
        assert_eq!(
            ranking(json!({"query": "q", "documents": vec!["a"; MAX_DOCUMENTS]})).top_n,
            MAX_DOCUMENTS
        );
    }

    #[test]
    fn the_best_come_first_and_equals_stay_in_their_order() {
        let ranking = Ranking { top_n: 3, returns_documents: true, max_tokens_per_document: 0 };
        let documents = || ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let results = ranking.results(documents(), &[0.1, 0.9, 0.1, 0.5]);
        let shown: Vec<_> = results
            .iter()
            .map(|result| (result.index, result.document.as_ref().unwrap().text.as_str()))
            .collect();
        assert_eq!(shown, [(1, "b"), (3, "d"), (0, "a")]);
        let silent = Ranking { returns_documents: false, ..ranking };
        assert!(silent.results(documents(), &[0.0; 4]).iter().all(|result| result.document.is_none()));
    }

    #[test]
    fn an_answer_speaks_to_the_clients_of_all() {
        let mut response = RerankResponse::new("rerank-1".into(), "m".into(), Version::Second, 7);
        let ranking = Ranking { top_n: 1, returns_documents: true, max_tokens_per_document: 0 };
        response.results = ranking.results(vec!["a".into()], &[0.5]);
        let expected = json!({
            "id": "rerank-1", "object": "list", "model": "m",
            "results": [{"index": 0, "relevance_score": 0.5, "document": {"text": "a"}}],
            "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": 7, "output_tokens": 0}},
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        });
        assert_eq!(serde_json::to_value(response).unwrap(), expected);
    }
}
