//! The model to be, in memory: its layers and config, merged from the base and the request.

use api::Options;
use api::ollama::{CreateRequest, OneOrMany};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CreateSpec, Made, Reporter, conversion, encode, file, info, shape};
use crate::model::MAX_TEXT;
use crate::store::Inner;
use crate::{Config, Digest, Error, Layer, LayerKind, Model, Name, Result, capability};

/// Each becomes a file. Models in the wild have three at most.
const MAX_LICENSES: u64 = 100;

/// Nothing is on disk yet, except what was there before.
pub(super) struct Draft {
    pub(super) pieces: Vec<Piece>,
    config: Config,
    parameters: Map<String, Value>,
}

/// A layer and where its bytes are.
pub(super) struct Piece {
    pub(super) layer: Layer,
    pub(super) content: Content,
}

pub(super) enum Content {
    Stored,
    Bytes(Vec<u8>),
}

// === impl Draft ===

impl Draft {
    /// The base: a stored model, or uploaded files. `from` wins when both are given, as in Ollama.
    pub(super) fn begin(inner: &Inner, spec: &CreateSpec, reporter: &Reporter) -> Result<Draft> {
        let request = &spec.request;
        if conversion::needed(inner, spec)?.is_some() {
            return Err(Error::Unconverted);
        }
        let files = file::parse_map(&request.files)?;
        let inspector = file::Inspector { inner, supported: spec.supported };
        let mut draft = if !request.from.is_empty() {
            Draft::from_model(&*inner.get(&Name::parse(request.from.trim())?)?)
        } else if !files.is_empty() {
            Draft { pieces: Vec::new(), config: Config::fresh(), parameters: Map::new() }
        } else {
            return Err(Error::NoSource);
        };
        match spec.made(LayerKind::Model) {
            Some(made) => draft.add_made(made, &inspector, made.rest(files))?,
            None if request.from.is_empty() => draft.add_files(inspector.models(&files, reporter)?),
            None => {}
        }
        if request.from.is_empty() && request.template.is_empty() {
            draft.give_template(inner, reporter)?;
        }
        draft.add_adapter(spec, &inspector, reporter)?;
        draft.add_draft(spec, &inspector)?;
        Ok(draft)
    }

    /// Puts what a worker has made in the place of the weights. It has told of its work already.
    fn add_made(&mut self, made: &Made, inspector: &file::Inspector<'_>, rest: file::Files) -> Result<()> {
        let mut weights = inspector.inspect("model.gguf", made.digest())?;
        let parent = self.pieces.iter().find(|piece| piece.layer.kind() == LayerKind::Model);
        weights.layer.from = parent.map_or_else(|| made.origin(), |parent| parent.layer.from.clone());
        self.pieces.retain(|piece| piece.layer.kind() != LayerKind::Model);
        let others = std::mem::take(&mut self.pieces);
        self.add_files(vec![weights]);
        self.pieces.extend(others);
        for (name, digest) in &rest {
            self.add_files(vec![inspector.inspect(name, digest)?]);
        }
        Ok(())
    }

    fn add_adapter(
        &mut self,
        spec: &CreateSpec,
        inspector: &file::Inspector<'_>,
        reporter: &Reporter,
    ) -> Result<()> {
        let adapters = file::parse_map(&spec.request.adapters)?;
        let found = match spec.made(LayerKind::Adapter) {
            Some(made) => vec![inspector.inspect("adapter.gguf", made.digest())?],
            None if adapters.is_empty() => return Ok(()),
            None if adapters.len() > 1 => return Err(Error::Adapters),
            None => inspector.adapters(&adapters, reporter)?,
        };
        self.add_files(found);
        Ok(())
    }

    /// A new one takes the place of the base's.
    fn add_draft(&mut self, spec: &CreateSpec, inspector: &file::Inspector<'_>) -> Result<()> {
        let given = file::parse_map(&spec.request.draft_files)?;
        let layer = match (spec.made(LayerKind::Draft), given.as_slice()) {
            (Some(made), _) => Layer { from: made.origin(), ..inspector.draft("draft.gguf", made.digest())? },
            (None, []) => return Ok(()),
            (None, [(name, digest)]) => inspector.draft(name, digest)?,
            (None, several) => return Err(file::several(several.len())),
        };
        self.pieces.retain(|piece| piece.layer.kind() != LayerKind::Draft);
        self.pieces.push(Piece { layer, content: Content::Stored });
        Ok(())
    }

    /// Lays the request over the base. An empty text means "not given".
    pub(super) fn apply(&mut self, request: &CreateRequest) -> Result<()> {
        if !request.template.is_empty() {
            capability::check_template(&request.template)?;
            self.replace(LayerKind::Template, request.template.clone().into_bytes())?;
        }
        if !request.system.is_empty() {
            self.replace(LayerKind::System, request.system.clone().into_bytes())?;
        }
        let OneOrMany(licenses) = request.license.clone().unwrap_or_default();
        bound("license", "texts", MAX_LICENSES, licenses.len())?;
        for license in licenses.into_iter().filter(|license| !license.is_empty()) {
            self.add(LayerKind::License, license.into_bytes())?;
        }
        self.merge_parameters(request.parameters.as_ref())?;
        let config = &mut self.config;
        for (field, given) in [
            (&mut config.renderer, &request.renderer),
            (&mut config.parser, &request.parser),
            (&mut config.requires, &request.requires),
        ] {
            if !given.is_empty() {
                given.clone_into(field);
            }
        }
        if let Some(given) = &request.info {
            info::apply(config, given)?;
        }
        if !request.messages.is_empty() {
            self.replace(LayerKind::Messages, json_line(&request.messages)?)?;
        }
        Ok(())
    }

    /// All blobs that the manifest will name.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let config = self.config_blob().ok().map(|(layer, _)| layer.digest);
        self.pieces.iter().map(|piece| piece.layer.digest.clone()).chain(config).collect()
    }

    pub(super) fn config_blob(&self) -> Result<(Layer, Vec<u8>)> {
        let bytes = encode(&self.config)?;
        Ok((Layer::config(Digest::of(&bytes), bytes.len() as u64), bytes))
    }

    fn from_model(model: &Model) -> Draft {
        let parent = model.name.shortest();
        let inherit = |layer: &Layer| Piece {
            layer: Layer { from: parent.clone(), ..layer.clone() },
            content: Content::Stored,
        };
        Draft {
            pieces: model.manifest.layers.iter().map(inherit).collect(),
            config: model.config.inherited(),
            parameters: model.parameters.clone(),
        }
    }

    fn add_files(&mut self, files: Vec<file::Inspected>) {
        for file in files {
            if file.layer.kind() == LayerKind::Model {
                self.config.model_family = file.architecture.clone();
                self.config.model_type = file.parameter_size;
                self.config.file_type = file.file_type.to_owned();
            }
            let families = self.config.model_families.get_or_insert_default();
            if !families.contains(&file.architecture) {
                families.push(file.architecture);
            }
            self.pieces.push(Piece { layer: file.layer, content: Content::Stored });
        }
    }

    /// A Go template and its stop strings for a model whose Jinja template makes prompts of a known shape.
    fn give_template(&mut self, inner: &Inner, reporter: &Reporter) -> Result<()> {
        let is_model = |piece: &&Piece| piece.layer.kind() == LayerKind::Model;
        let Some(model) = self.pieces.iter().find(is_model) else { return Ok(()) };
        let header = inner.home.header(&model.layer.digest).ok();
        let Some(known) = header.and_then(|header| shape::recognise(&header.gguf)) else { return Ok(()) };
        reporter.status(format!("using autodetected template {}", known.name))?;
        self.replace(LayerKind::Template, known.template.as_bytes().to_vec())?;
        let stops = Value::from(known.stops.to_vec());
        self.merge_parameters(Some(&Map::from_iter([("stop".to_owned(), stops)])))
    }

    /// New values win over the base's, key by key. Checked here, because later nobody could say whose fault it is.
    fn merge_parameters(&mut self, given: Option<&Map<String, Value>>) -> Result<()> {
        let Some(given) = given.filter(|given| !given.is_empty()) else { return Ok(()) };
        Options::default().merge(given).map_err(Error::Parameters)?;
        let given = given.iter().filter(|(_, value)| !value.is_null());
        self.parameters.extend(given.map(|(key, value)| (key.clone(), value.clone())));
        // Sorted, so that the same parameters make the same blob.
        self.parameters.sort_keys();
        let bytes = json_line(&self.parameters)?;
        self.replace(LayerKind::Params, bytes)
    }

    fn replace(&mut self, kind: LayerKind, bytes: Vec<u8>) -> Result<()> {
        self.pieces.retain(|piece| piece.layer.kind() != kind);
        self.add(kind, bytes)
    }

    /// A license that the base has already is not added twice.
    fn add(&mut self, kind: LayerKind, bytes: Vec<u8>) -> Result<()> {
        bound(kind.field(), "bytes", MAX_TEXT, bytes.len())?;
        let layer = Layer::new(kind, Digest::of(&bytes), bytes.len() as u64);
        let same = |piece: &Piece| piece.layer.kind() == kind && piece.layer.digest == layer.digest;
        if !self.pieces.iter().any(same) {
            self.pieces.push(Piece { layer, content: Content::Bytes(bytes) });
        }
        Ok(())
    }
}

/// What is written here must be readable later.
pub(super) fn bound(field: &'static str, unit: &'static str, limit: u64, got: usize) -> Result<()> {
    let got = got as u64;
    if got > limit { Err(Error::TooLong { field, unit, limit, got }) } else { Ok(()) }
}

/// As Go's encoder writes it: one line, with its end.
fn json_line<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    let mut bytes = encode(value)?;
    bytes.push(b'\n');
    Ok(bytes)
}
