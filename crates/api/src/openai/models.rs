//! `GET /v1/models` and `GET /v1/models/{model}`.

use serde::{Serialize, Serializer};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Model {
    /// The full display name with its tag; when one model is asked for, the name as it was asked.
    pub id: String,
    pub object: &'static str,
    /// When it was last changed, in seconds since 1970.
    pub created: i64,
    /// The namespace.
    pub owned_by: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelList {
    pub object: &'static str,
    /// `null` when there is none, as in Ollama.
    #[serde(serialize_with = "null_when_empty")]
    pub data: Vec<Model>,
}

impl Model {
    pub fn new(id: String, created: i64, owned_by: String) -> Model {
        Model { id, object: "model", created, owned_by }
    }
}

impl From<Vec<Model>> for ModelList {
    fn from(data: Vec<Model>) -> ModelList {
        ModelList { object: "list", data }
    }
}

fn null_when_empty<S: Serializer>(data: &Vec<Model>, serializer: S) -> Result<S::Ok, S::Error> {
    Some(data).filter(|data| !data.is_empty()).serialize(serializer)
}
