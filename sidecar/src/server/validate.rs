//! `--mode validate`: everything is read and built as for serving, and nothing is opened.

use std::io;
use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::Args;
use crate::cluster::Manager;
use crate::config::Rejected;
use crate::config::bootstrap::{self, Bootstrap};
use crate::stats::Registry;
use crate::tls;

/// Prints every problem, or that there is none.
pub(super) fn run(args: &Args) -> ExitCode {
    let bootstrap = match super::control::read_bootstrap(args) {
        Ok(bootstrap) => bootstrap,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let problems = match tls_problems(&bootstrap) {
        Ok(problems) => problems,
        Err(error) => {
            eprintln!("cannot set up a runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    if problems.is_empty() {
        println!("configuration OK");
        return ExitCode::SUCCESS;
    }
    for problem in problems {
        eprintln!("{problem}");
    }
    ExitCode::FAILURE
}

/// Keys that do not fit their certificates and the like show only when TLS is set up.
fn tls_problems(bootstrap: &Bootstrap) -> io::Result<Vec<Rejected>> {
    // Clusters start the tasks of their health checks. Nobody runs this runtime, so that no endpoint is asked anything.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let mut contexts = tls::Contexts::new();
    let mut manager = Manager::new(&Registry::new(1));
    let mut problems = Vec::new();
    let mut note = |place: String, outcome: Result<(), Rejected>| {
        if let Err(Rejected { path, reason }) = outcome {
            problems.push(Rejected { path: format!("{place}.{path}"), reason });
        }
    };
    for (index, secret) in bootstrap.secrets.iter().enumerate() {
        let place = format!("static_resources.secrets[{index}]");
        note(place, contexts.set_secret(secret.clone()));
    }
    for (index, cluster) in bootstrap.clusters.iter().enumerate() {
        // Resolving names would be serving already.
        let is_resolved = matches!(cluster.discovery, crate::config::cluster::Discovery::Dns(_));
        if !is_resolved {
            let place = format!("static_resources.clusters[{index}]");
            note(place, manager.set(Arc::clone(cluster), &mut contexts));
        }
    }
    for (index, listener) in bootstrap.listeners.iter().enumerate() {
        let chains = listener.filter_chains.iter().chain(&listener.default_filter_chain);
        for (chain, tls) in
            chains.enumerate().filter_map(|(at, chain)| Some((at, chain.tls.as_ref()?)))
        {
            let place = format!(
                "static_resources.listeners[{index}].filter_chains[{chain}].transport_socket"
            );
            note(place, contexts.server(tls).map(drop));
        }
    }
    Ok(problems)
}

/// What the command line adds to the bootstrap.
pub(super) fn options(args: &Args) -> bootstrap::Options {
    bootstrap::Options {
        service_node: args.service_node.clone(),
        service_cluster: args.service_cluster.clone(),
        service_zone: args.service_zone.clone(),
        allow_unknown_static_fields: args.allow_unknown_static_fields,
    }
}
