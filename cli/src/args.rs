//! The command tree.

use clap::{Parser, Subcommand};

use crate::commands::apply::{ApplyArgs, DiffArgs};
use crate::commands::authz::AuthzCommand;
use crate::commands::check::CheckArgs;
use crate::commands::completion::CompletionArgs;
use crate::commands::delete::DeleteArgs;
use crate::commands::endpoints::EndpointsArgs;
use crate::commands::export::ExportArgs;
use crate::commands::get::GetArgs;
use crate::commands::history::HistoryArgs;
use crate::commands::identity::{CaCommand, IdentityCommand};
use crate::commands::inject::{InjectCommand, UninjectArgs};
use crate::commands::rollback::RollbackArgs;
use crate::commands::status::StatusArgs;
use crate::commands::token::TokenCommand;
use crate::commands::validate::ValidateArgs;
use crate::container::healthcheck::HealthcheckArgs;
use crate::container::install::InstallArgs;
use crate::container::run::RunArgs;
use crate::demo::DemoArgs;
use crate::demo_app::DemoAppArgs;

/// A service mesh: the sidecar, the control plane, and the commands to work with them.
#[derive(Debug, Parser)]
#[command(
    name = "outrigger",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 ok, 1 error, 2 usage, 3 check failed or drift, 4 rejected by validation, 5 timeout."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole mesh on this machine, from nothing, and show it
    Demo(DemoArgs),
    /// Run the data plane: from an Envoy bootstrap, or as a member of a mesh
    Sidecar(Box<outrigger_sidecar::cli::Args>),
    /// Run the control plane
    ControlPlane(Box<outrigger_control_plane::cli::Args>),
    /// Run a command behind a sidecar: it starts when the sidecar is ready, and its exit code is passed on
    Run(Box<RunArgs>),
    /// Put sidecars beside the services of a file
    #[command(subcommand)]
    Inject(InjectCommand),
    /// Give back the file as it was before `inject`
    Uninject(UninjectArgs),
    /// Apply resources, all or none of them
    Apply(ApplyArgs),
    /// Say what an apply would change; exit code 3 if anything
    Diff(DiffArgs),
    /// Check resources without a control plane
    Validate(ValidateArgs),
    /// Show resources
    Get(GetArgs),
    /// Delete a resource
    Delete(DeleteArgs),
    /// Show the revisions
    History(HistoryArgs),
    /// Return to the resources of an earlier revision
    Rollback(RollbackArgs),
    /// Print every resource, in a form that apply takes back
    Export(ExportArgs),
    /// Show which sidecars serve what, and what they rejected
    Status(StatusArgs),
    /// Show the instances of services, who is ejected and why
    Endpoints(EndpointsArgs),
    /// Check the mesh, or with --pre this machine; exit code 3 if something is not as it should be
    Check(CheckArgs),
    /// Say what policies make of a request
    #[command(subcommand)]
    Authz(AuthzCommand),
    /// Let sidecars join
    #[command(subcommand)]
    Token(TokenCommand),
    /// Show who is a member, and revoke identities
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// The certificate authority, and the rotation of its root
    #[command(subcommand)]
    Ca(CaCommand),
    /// Print a shell's completion script
    Completion(CompletionArgs),
    /// Own a container's network and do nothing else
    #[command(hide = true)]
    Pause,
    /// Ask for readiness over HTTP, as health checks of containers do; exit code 3 if it is not given
    #[command(hide = true)]
    Healthcheck(HealthcheckArgs),
    /// Copy this program into a folder
    #[command(hide = true)]
    Install(InstallArgs),
    /// The application of the demo's services
    #[command(hide = true)]
    DemoApp(DemoAppArgs),
}
