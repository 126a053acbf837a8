//! `outrigger endpoints`.

use clap::Args;

use super::{ClientArgs, name, watch};
use crate::client::{Endpoint, Items, typed};
use crate::exit::Outcome;
use crate::output::{Cell, OutputArgs, Table, left};

/// Arguments of `endpoints`.
#[derive(Debug, Args)]
pub(crate) struct EndpointsArgs {
    /// Only those of one service
    #[arg(short, long, value_parser = name)]
    service: Option<String>,
    /// Show them again every second
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// Who serves, and who is ejected, why and for how long.
pub(crate) async fn run(args: EndpointsArgs) -> Outcome {
    let api = args.client.api()?;
    let path = match &args.service {
        Some(service) => format!("/v1/endpoints?service={service}"),
        None => "/v1/endpoints".to_owned(),
    };
    let output = &args.client.output;
    watch::show(args.watch, async || {
        let answer = api.get(&path).await?;
        output.render(&answer, || {
            let items = typed::<Items<Endpoint>>(&path, answer.clone())?.items;
            Ok(output.table(&table(&items, output)))
        })
    })
    .await
}

fn table(endpoints: &[Endpoint], output: &OutputArgs) -> Table {
    let mut header = vec!["SERVICE", "INSTANCE", "ADDRESS", "HEALTH", "ACTIVE", "WHY"];
    if output.wide() {
        header.extend(["WEIGHT", "LOCALITY", "LABELS"]);
    }
    let mut table = Table::new(&header);
    for endpoint in endpoints {
        let mut cells = vec![
            Cell::from(endpoint.service.as_str()),
            Cell::from(endpoint.instance.as_str()),
            Cell::from(format!("{}:{}", endpoint.address, endpoint.port)),
            Cell::state(&endpoint.health),
            Cell::from(number(endpoint.active_requests)),
            Cell::from(why(endpoint)),
        ];
        if output.wide() {
            let labels: Vec<String> =
                endpoint.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            cells.extend([
                Cell::from(number(endpoint.weight)),
                Cell::from(locality(endpoint)),
                Cell::from(labels.join(",")),
            ]);
        }
        table.row(cells);
    }
    table
}

/// Why it gets no requests, and how long still.
pub(crate) fn why(endpoint: &Endpoint) -> String {
    let because = endpoint.ejected_because.as_deref().unwrap_or("");
    match endpoint.ejected_until.as_deref().map(left) {
        Some(left) if !left.is_empty() => format!("{because}, {left} left"),
        _ => because.to_owned(),
    }
}

fn locality(endpoint: &Endpoint) -> String {
    let parts = ["region", "zone"].map(|part| endpoint.locality[part].as_str().unwrap_or(""));
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn number(number: Option<u64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
