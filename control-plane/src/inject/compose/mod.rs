//! A compose file with a mesh in it; [`super`] shows the shape.
//!
//! In the order of the work: [`project`], the file with everything that its services inherit; [`labels`] and [`ports`], what it
//! says of each; [`plan`], what becomes of each; [`emit`], the services that are added and what changes of the others;
//! [`splice`], all of it put into the text, where whatever does not change stays as it is, comments and anchors included.

mod emit;
mod labels;
mod plan;
mod ports;
mod project;
mod splice;

pub use self::labels::Mode;
pub use self::project::ReadFile;

use super::envelope;
use crate::model::problem::Problem;
use serde::Serialize;

/// Name of the control plane's service.
const CONTROL: &str = "outrigger-control";
/// Name of the service that brings the binary to wrapped ones.
const INSTALL: &str = "outrigger-install";
/// Name of the network of a mesh whose services share none.
const MESH_NETWORK: &str = "outrigger";

/// How a file is injected.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image with the binary, for everything that is added.
    pub image: String,
    /// How application and sidecar stand together where no label says it.
    pub mode: Mode,
    /// Services that are injected; empty: all that can be.
    pub only: Vec<String>,
    /// What is made.
    pub form: Form,
    /// Publish the API of the control plane at 127.0.0.1:7700 of the host. Every container of the mesh's network can
    /// then use it too.
    pub publish_api: bool,
}

/// What is made of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The whole file, with the mesh in it.
    Whole,
    /// Only what is added and changed, for a second `-f`. Keys that move to the network owner are taken away with
    /// `!reset`, which Compose knows from 2.24.
    Override,
}

/// An injected file.
#[derive(Debug, Clone)]
pub struct Injected {
    /// Its text.
    pub text: String,
    /// What became of each service, in their order.
    pub services: Vec<Row>,
    /// Only Compose 2.24 and later read it.
    pub needs_reset: bool,
}

/// What became of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The service.
    pub service: String,
    /// `injected`, `wrapped` or `skipped`.
    pub action: &'static str,
    /// Its ports in the mesh.
    pub ports: Vec<u16>,
    /// What is spoken there, port for port.
    pub protocols: Vec<&'static str>,
    /// How calls get into the mesh: `listeners` (on addresses of their own on loopback).
    pub capture: &'static str,
    /// Reasons, and what to know.
    pub notes: Vec<String>,
}

/// Puts a mesh into a compose file that has none. Other files that its services extend are read by `files`.
///
/// # Errors
/// Everything that is wrong, at its place in `text`.
pub fn inject(
    text: &str,
    options: &Options,
    files: ReadFile<'_>,
) -> Result<Injected, Vec<Problem>> {
    let project = project::Project::read(text, files)?;
    let plan = plan::plan(&project, options)?;
    let services = report(&project, &plan);
    if plan.members.is_empty() {
        return Ok(Injected { text: text.to_owned(), services, needs_reset: false });
    }
    let pieces = emit::emit(&project, &plan, options)?;
    let (body, needs_reset) = match options.form {
        Form::Whole => (splice::whole(&project, &pieces), false),
        Form::Override => splice::overriding(&pieces),
    };
    let text = match options.form {
        Form::Whole => envelope::seal(body, text),
        Form::Override => body,
    };
    Ok(Injected { text, services, needs_reset })
}

fn report(project: &project::Project<'_>, plan: &plan::Plan) -> Vec<Row> {
    let rows = project.services.iter().enumerate().map(|(index, service)| {
        let name = service.name.clone();
        let Some(member) = plan.member(index) else {
            let reason = plan.skipped.iter().find(|it| it.index == index);
            return Row {
                service: name,
                action: "skipped",
                ports: Vec::new(),
                protocols: Vec::new(),
                capture: "",
                notes: reason.map(|it| it.reason.clone()).into_iter().collect(),
            };
        };
        let mut notes = member.notes.clone();
        if member.replicas.len() > 1 {
            notes.insert(0, format!("{} replicas", member.replicas.len()));
        }
        Row {
            service: name,
            action: match member.mode {
                Mode::Trio => "injected",
                Mode::Wrapper => "wrapped",
            },
            ports: member.ports.iter().map(|(port, _)| *port).collect(),
            protocols: member.ports.iter().map(|(_, protocol)| ports::name(*protocol)).collect(),
            capture: if member.calls.is_empty() { "" } else { "listeners" },
            notes,
        }
    });
    rows.collect()
}
