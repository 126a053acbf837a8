//! What a control plane makes at its start of the documents it is given with its arguments.

use super::Api;
use crate::model::read::{Content, Document};
use crate::model::{Kind, changes};

/// The author of what is made so.
const AUTHOR: &str = "seed";

impl Api {
    /// Makes the objects that are not there. Those that are stay as they are; where they differ, that is logged.
    pub async fn seed(&self, documents: Vec<Document>) {
        let base = self.store.current();
        for document in &documents {
            if let (Content::Object(wanted), Some((there, _))) =
                (&document.content, base.object(document.kind(), document.name()))
            {
                let differ = changes::of_objects(&there, wanted);
                let fields: Vec<_> = differ.iter().map(|change| change.field.as_str()).collect();
                if !fields.is_empty() {
                    tracing::warn!(
                        kind = document.kind().as_str(),
                        name = document.name(),
                        fields = fields.join(", "),
                        "is not as --seed says, and stays as it is; `outrigger apply` changes it"
                    );
                }
            }
        }
        let missing = |kind: Kind, name: &str| base.object(kind, name).is_none();
        let new: Vec<Document> = documents
            .into_iter()
            .filter(|it| matches!(it.content, Content::Object(_)) && missing(it.kind(), it.name()))
            .collect();
        if let Err(failure) = self.change(AUTHOR, |_| Ok(new.clone())).await {
            for problem in failure.problems() {
                tracing::error!(%problem, "--seed");
            }
            tracing::error!(detail = failure.detail(), "nothing was made of --seed");
        }
    }
}
