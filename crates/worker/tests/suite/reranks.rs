//! `Rerank`: scores in the order of the documents, slots, and what an embedder makes of it.

use api::{Code, Error};
use protocol::{
    from_status,
    v1::{EmbedRequest, RerankRequest, RerankResponse},
};

use crate::{
    files,
    ground::{Site, ask, model},
    tiny,
};

fn request(query: &str, documents: &[&str]) -> RerankRequest {
    RerankRequest {
        model: Some(model("model")),
        query: query.into(),
        documents: documents.iter().map(|document| document.to_string()).collect(),
        ..RerankRequest::default()
    }
}

async fn rerank(site: &Site, request: RerankRequest) -> Result<RerankResponse, Error> {
    let response = site.client.clone().rerank(request).await;
    response.map(|response| response.into_inner()).map_err(|status| from_status(&status))
}

/// A site with this file loaded as `model`.
async fn loaded(blob: &[u8]) -> (Site, tempfile::TempDir) {
    let (site, request, folder) = files::site(blob).await;
    site.load(request).await.unwrap();
    (site, folder)
}

#[tokio::test]
async fn documents_get_their_scores_in_their_order() {
    let site = Site::loaded(1).await;
    let response = rerank(&site, request("red camel", &["a red camel", "", "a camel"])).await.unwrap();
    assert_eq!(response.scores.len(), 3);
    assert!((response.scores[0] - 0.982).abs() < 0.001 && (response.scores[1] - 0.018).abs() < 0.001);
    assert_eq!(response.scores[2], 0.5);
    // The query and what separates it, three times, and the documents.
    assert_eq!(response.prompt_tokens, 3 * 10 + 11 + 7);
    let cut = RerankRequest { max_tokens_per_document: 5, ..request("red camel", &["a red camel"]) };
    assert_eq!(rerank(&site, cut).await.unwrap().scores, [0.5]);
    site.wait_for_used_slots(0).await;
}

#[tokio::test]
async fn no_documents_have_no_scores() {
    let site = Site::loaded(1).await;
    assert_eq!(rerank(&site, request("q", &[])).await.unwrap(), RerankResponse::default());
}

#[tokio::test]
async fn reranking_needs_a_slot_and_a_replica() {
    let site = Site::loaded(1).await;
    site.loader.steps.close();
    let _running = site.generate(ask("hi")).await.unwrap();
    assert_eq!(rerank(&site, request("q", &["d"])).await.unwrap_err().code, Code::Busy);
    site.loader.steps.open();
    let elsewhere = RerankRequest { model: Some(model("other")), ..request("q", &["d"]) };
    assert_eq!(rerank(&site, elsewhere).await.unwrap_err().code, Code::NotLoaded);
}

#[tokio::test]
async fn a_reranker_ranks_alike_alone_and_among_many_and_makes_vectors() {
    let (site, _folder) = loaded(&tiny::reranker()).await;
    let documents: Vec<String> = (0..40).map(|at| "ab cd ".repeat(at)).collect();
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let together = rerank(&site, request("query", &documents)).await.unwrap();
    assert!(together.scores.iter().all(|score| (0.0..=1.0).contains(score)));
    for at in [0, 7, 39] {
        let alone = rerank(&site, request("query", &documents[at..=at])).await.unwrap();
        assert_eq!(alone.scores, together.scores[at..=at]);
    }
    let inputs = vec!["one".to_owned()];
    let embed = EmbedRequest { model: Some(model("model")), inputs, ..EmbedRequest::default() };
    let vectors = site.client.clone().embed(embed).await.unwrap().into_inner();
    assert_eq!(vectors.embeddings[0].values.len(), 32);
}

#[tokio::test]
async fn an_embedder_compares_vectors_and_a_language_model_refuses() {
    let (site, _folder) = loaded(&tiny::embedder()).await;
    let response = rerank(&site, request("the same", &["the same", "another", ""])).await.unwrap();
    assert!((response.scores[0] - 1.0).abs() < 1e-6, "{response:?}");
    assert!(response.scores[1..].iter().all(|score| *score < 0.999_999), "{response:?}");
    let (site, _folder) = loaded(&tiny::gguf()).await;
    let error = rerank(&site, request("q", &["d"])).await.unwrap_err();
    assert_eq!(error, Error::invalid("this model does not support rerank"));
}
