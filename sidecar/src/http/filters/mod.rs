//! HTTP filters: what looks at a request between its route and its endpoint. One file a filter.
//!
//! A connection manager has the filters of its configuration in their order, and no others: what is not configured costs
//! nothing. A request goes through all of them ([`pass`]); what a filter will do to the response it leaves in [`Steps`],
//! which are done in reverse order when there is a response, be it the endpoint's or our own.

pub(crate) mod buffer;
mod compressor;
mod cors;
mod csrf;
mod decompressor;
mod descriptors;
pub(crate) mod discovered;
mod ext_authz;
pub(crate) mod fault;
mod grpc_stats;
pub(crate) mod header_mutation;
mod health_check;
mod jwt_authn;
mod local_ratelimit;
mod on_demand;
mod ratelimit;
mod rbac;
mod set_state;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, StatusCode};

use self::discovered::Current;
use super::body::ClientBody;
use super::connection_manager::Connection;
use super::exchange::Exchange;
use super::headers::Accepted;
use super::local_reply::LocalReply;
use super::matching::RequestView;
use super::pipe::{Pipe, Stage};
use super::router::{Refusal, view_of};
use crate::config::compressor::CompressorPerRoute;
use crate::config::grpc_stats::GrpcStats;
use crate::config::http_filters::{
    CsrfPolicy, FilterKind, FilterOverride, FilterOverrides, Fraction, HttpFilter, RouteFilter,
};
use crate::config::metadata::{SetFilterState, SetMetadata};
use crate::config::rbac::Rbac;
use crate::config::route::Route;
use crate::local::{ClusterRef, Local};
use crate::stats::{
    CorsCells, CsrfCells, FaultCells, RbacCells, RbacShadowCells, Registry, Scope,
    SetMetadataCells, Sharded,
};

/// What filters see of a request, and may change.
pub(crate) struct Passage<'a> {
    pub(crate) connection: &'a Rc<Connection>,
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) request: &'a mut Parts,
    pub(crate) accepted: &'a Accepted,
    /// The most specific first: weighted cluster, route, virtual host, route configuration.
    pub(crate) overrides: [Option<&'a FilterOverrides>; 4],
    /// Name of the cluster that the route forwards to.
    pub(crate) cluster: Option<&'a str>,
    /// The cluster itself.
    pub(crate) target: Option<ClusterRef>,
    /// The route that takes the request.
    pub(crate) route: Option<&'a Route>,
    pub(crate) steps: &'a mut Steps,
    /// Set by a filter after which the route has to be looked for again.
    pub(crate) rematch: bool,
    /// Set as well, if that has to be in the routes and clusters as they are by then.
    pub(crate) refresh: bool,
}

impl Passage<'_> {
    fn view(&self) -> RequestView<'_> {
        view_of(self.request, self.accepted, self.exchange.state.as_deref())
    }
}

/// A filter of a connection manager.
pub(crate) struct Filter {
    /// Key of overrides.
    name: Arc<str>,
    /// Off, except where a route turns it on.
    disabled: bool,
    kind: Kind,
}

enum Kind {
    Rbac(Arc<Rbac>, Arc<Sharded<RbacCells>>, Arc<Sharded<RbacShadowCells>>),
    Cors(Arc<Sharded<CorsCells>>),
    Csrf(Arc<CsrfPolicy>, Arc<Sharded<CsrfCells>>),
    Fault(fault::Filter),
    GrpcStats(Arc<GrpcStats>),
    LocalRateLimit(local_ratelimit::Filter),
    HeaderMutation(header_mutation::Filter),
    Buffer(u32),
    HealthCheck(health_check::Filter),
    SetMetadata(Arc<SetMetadata>, Arc<Sharded<SetMetadataCells>>),
    SetFilterState(Arc<SetFilterState>),
    JwtAuthn(Box<jwt_authn::Filter>),
    Discovered(Arc<discovered::Slot>),
    ExtAuthz(Box<ext_authz::Filter>),
    Compressor(compressor::Filter),
    Decompressor(decompressor::Filter),
    RateLimit(Box<ratelimit::Filter>),
    OnDemand(on_demand::Config),
}

/// What becomes of a request that a filter does not answer.
enum Pass {
    /// It goes on.
    On,
    /// It goes on, or is answered, after so long.
    Wait(Duration, Option<Refusal>),
    /// It goes on once its body is there, of so many bytes at most.
    Buffer(u32),
    /// It goes on, with one more thing made of its body on its way.
    Through(Box<Stage>),
    /// The filter has to ask somebody, or may have to.
    Ask,
}

impl Filter {
    /// A filter of the connection manager with this prefix of statistics.
    /// `control` is for what goes on beside requests.
    pub(crate) fn build(
        config: &HttpFilter,
        registry: &Arc<Registry>,
        prefix: &Arc<str>,
        control: &Rc<Local>,
    ) -> Self {
        let scope = || Scope::Http(Arc::clone(prefix));
        let kind = match &config.kind {
            FilterKind::Rbac(rbac) => {
                let scope = |rules: &Arc<str>| {
                    Scope::HttpFilter("rbac", Arc::clone(prefix), Arc::clone(rules))
                };
                let stats = registry.scope(scope(&rbac.rules_prefix));
                let shadow = registry.scope(scope(&rbac.shadow_prefix));
                Kind::Rbac(Arc::clone(rbac), stats, shadow)
            }
            FilterKind::Cors => Kind::Cors(registry.scope(scope())),
            FilterKind::Csrf(policy) => Kind::Csrf(Arc::clone(policy), registry.scope(scope())),
            FilterKind::GrpcStats(config) => Kind::GrpcStats(Arc::clone(config)),
            FilterKind::Fault(fault) => {
                let stats: Arc<Sharded<FaultCells>> = registry.scope(scope());
                Kind::Fault(fault::Filter::new(fault, stats))
            }
            FilterKind::LocalRateLimit(limit) => {
                Kind::LocalRateLimit(local_ratelimit::Filter::new(limit, registry))
            }
            FilterKind::HeaderMutation(mutation) => {
                Kind::HeaderMutation(header_mutation::Filter(Arc::clone(mutation)))
            }
            FilterKind::Buffer(most) => Kind::Buffer(*most),
            FilterKind::HealthCheck(config) => {
                Kind::HealthCheck(health_check::Filter::new(config, registry.scope(scope())))
            }
            FilterKind::SetMetadata(set) => {
                Kind::SetMetadata(Arc::clone(set), registry.scope(scope()))
            }
            FilterKind::ExtAuthz(config) => {
                Kind::ExtAuthz(Box::new(ext_authz::Filter::new(config, registry, prefix)))
            }
            FilterKind::JwtAuthn(config) => {
                let filter = jwt_authn::Filter::new(config, registry, prefix, control);
                Kind::JwtAuthn(Box::new(filter))
            }
            FilterKind::RateLimit(config) => {
                Kind::RateLimit(Box::new(ratelimit::Filter::new(config, registry)))
            }
            FilterKind::Compressor(config) => {
                Kind::Compressor(compressor::Filter::new(config, registry, prefix))
            }
            FilterKind::Decompressor(config) => {
                Kind::Decompressor(decompressor::Filter::new(config, registry, prefix))
            }
            FilterKind::SetFilterState(set) => Kind::SetFilterState(Arc::clone(set)),
            FilterKind::OnDemand(config) => Kind::OnDemand(config.clone()),
            FilterKind::Discovered(discovered) => Kind::Discovered(Arc::new(
                discovered::Slot::new(&config.name, discovered, registry, prefix, control),
            )),
        };
        Self { name: Arc::clone(&config.name), disabled: config.disabled, kind }
    }

    /// The place of the filter, if its configuration is discovered.
    pub(crate) fn discovered(&self) -> Option<&Arc<discovered::Slot>> {
        match &self.kind {
            Kind::Discovered(slot) => Some(slot),
            _ => None,
        }
    }

    /// What the most specific level that says something about this filter configures; `Err`: it is off.
    fn configured<'a>(
        &self,
        overrides: &[Option<&'a FilterOverrides>; 4],
    ) -> Result<Option<&'a RouteFilter>, Off> {
        let mut on = !self.disabled;
        for (at, said) in overrides.iter().flatten().filter_map(|o| o.of(&self.name)).enumerate() {
            match said {
                // Whether it is on, only the most specific level says.
                FilterOverride::Off if at == 0 => return Err(Off),
                FilterOverride::Off => {}
                FilterOverride::On => on = true,
                FilterOverride::Configured(config) => return Ok(Some(config)),
            }
        }
        if on { Ok(None) } else { Err(Off) }
    }

    fn run(&self, passage: &mut Passage<'_>) -> Result<Pass, Refusal> {
        let Ok(configured) = self.configured(&passage.overrides) else { return Ok(Pass::On) };
        match &self.kind {
            Kind::Rbac(config, stats, shadow) => {
                let config = match configured {
                    Some(RouteFilter::Rbac(config)) => config.as_ref(),
                    _ => Some(config),
                };
                if let Some(config) = config {
                    rbac::run(config, stats.local(), shadow.local(), passage)?;
                }
            }
            Kind::Cors(stats) => cors::run(&self.name, stats.local(), passage)?,
            Kind::Csrf(policy, stats) => {
                let policy = match configured {
                    Some(RouteFilter::Csrf(policy)) => policy,
                    _ => policy,
                };
                csrf::run(policy, stats.local(), passage)?;
            }
            Kind::GrpcStats(config) => return Ok(grpc_stats::run(config, passage)),
            Kind::Fault(filter) => {
                let config = match configured {
                    Some(RouteFilter::Fault(config)) => config,
                    _ => &filter.config,
                };
                return filter.run(config, passage);
            }
            Kind::LocalRateLimit(filter) => {
                let config = match configured {
                    Some(RouteFilter::LocalRateLimit(config)) => config,
                    _ => &filter.config,
                };
                filter.run(config, passage)?;
            }
            Kind::HeaderMutation(filter) => {
                filter.of_request(&self.name, passage);
                filter.of_response(&self.name, passage);
            }
            Kind::Buffer(most) => {
                let most = match configured {
                    Some(RouteFilter::Buffer(most)) => *most,
                    _ => Some(*most),
                };
                return Ok(most.map_or(Pass::On, Pass::Buffer));
            }
            Kind::HealthCheck(filter) => filter.run(passage)?,
            Kind::SetMetadata(config, stats) => {
                set_state::metadata(config, stats.local(), passage);
            }
            Kind::SetFilterState(config) => {
                let config = match configured {
                    Some(RouteFilter::SetFilterState(config)) => config,
                    _ => config,
                };
                set_state::filter_state(config, passage);
            }
            Kind::Compressor(filter) => {
                return Ok(filter.run(compressor_of(configured), passage));
            }
            Kind::Decompressor(filter) => return Ok(filter.run(passage)),
            Kind::JwtAuthn(_) | Kind::ExtAuthz(_) | Kind::RateLimit(_) => return Ok(Pass::Ask),
            Kind::OnDemand(config) => {
                return Ok(on_demand::run(on_demand::configured(config, configured), passage));
            }
            // Which filter it is, was found out before.
            Kind::Discovered(_) => {}
        }
        Ok(Pass::On)
    }

    /// Does what may take a while.
    async fn ask(
        &self,
        passage: &mut Passage<'_>,
        body: ClientBody,
    ) -> Result<ClientBody, Refusal> {
        let Ok(configured) = self.configured(&passage.overrides) else { return Ok(body) };
        match &self.kind {
            Kind::JwtAuthn(filter) => {
                let per_route = match configured {
                    Some(RouteFilter::JwtAuthn(per_route)) => Some(per_route),
                    _ => None,
                };
                filter.run(per_route, passage).await?;
                Ok(body)
            }
            Kind::ExtAuthz(filter) => filter.run(&self.name, passage, body).await,
            Kind::RateLimit(filter) => {
                let per_route = match configured {
                    Some(RouteFilter::RateLimit(per_route)) => Some(&**per_route),
                    _ => None,
                };
                filter.run(per_route, passage).await?;
                Ok(body)
            }
            Kind::OnDemand(config) => {
                on_demand::wait(on_demand::configured(config, configured), passage).await;
                Ok(body)
            }
            _ => Ok(body),
        }
    }

    /// What the filter does to the answer of one that stands before it.
    fn after_refusal(&self, passage: &mut Passage<'_>) {
        let Ok(configured) = self.configured(&passage.overrides) else { return };
        match &self.kind {
            Kind::HeaderMutation(filter) => filter.of_response(&self.name, passage),
            Kind::HealthCheck(filter) => filter.of_any(passage),
            Kind::Compressor(filter) => filter.after_refusal(compressor_of(configured), passage),
            Kind::Decompressor(filter) => filter.after_refusal(passage),
            Kind::Discovered(slot) => slot.after_refusal(passage),
            _ => {}
        }
    }
}

/// What a route says about compression.
fn compressor_of(configured: Option<&RouteFilter>) -> Option<&CompressorPerRoute> {
    match configured {
        Some(RouteFilter::Compressor(per_route)) => Some(per_route),
        _ => None,
    }
}

/// A filter that is off for a request.
struct Off;

/// Sends a request through filters, in their order, up to one after which the route has to be looked for again. Gives its
/// body back with the filters that are left, or the answer of the filter that refused it.
pub(crate) async fn pass<'f>(
    filters: &'f [Filter],
    passage: &mut Passage<'_>,
    mut body: ClientBody,
) -> Result<(ClientBody, &'f [Filter]), Refusal> {
    for (at, filter) in filters.iter().enumerate() {
        // Held until it is through: it may be another one for the next request.
        let discovered;
        let filter = match &filter.kind {
            Kind::Discovered(slot) if filter.configured(&passage.overrides).is_ok() => {
                discovered = slot.current();
                match &*discovered {
                    Current::Filter(filter) => filter,
                    Current::Nothing => continue,
                    Current::Missing => {
                        let rest = filters.get(at + 1..).unwrap_or_default();
                        rest.iter().for_each(|filter| filter.after_refusal(passage));
                        return Err(discovered::missing());
                    }
                }
            }
            _ => filter,
        };
        let rest = filters.get(at + 1..).unwrap_or_default();
        let refusal = match filter.run(passage) {
            Ok(Pass::On) if passage.rematch => return Ok((body, rest)),
            Ok(Pass::On) => continue,
            Ok(Pass::Through(stage)) => {
                match body.through(*stage, passage.exchange.progress.as_deref()) {
                    Ok(changed) => {
                        body = changed;
                        continue;
                    }
                    Err(_) => LocalReply::new(StatusCode::INTERNAL_SERVER_ERROR, "", "").into(),
                }
            }
            Ok(Pass::Ask) => match Box::pin(filter.ask(passage, body)).await {
                Ok(same) if passage.rematch => return Ok((same, rest)),
                Ok(same) => {
                    body = same;
                    continue;
                }
                Err(refusal) => refusal,
            },
            Ok(Pass::Wait(time, then)) => {
                Box::pin(tokio::time::sleep(time)).await;
                match then {
                    None => continue,
                    Some(refusal) => refusal,
                }
            }
            Ok(Pass::Buffer(most)) => match Box::pin(buffer::collect(body, most, passage)).await {
                Ok(whole) => {
                    body = whole;
                    continue;
                }
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        rest.iter().for_each(|filter| filter.after_refusal(passage));
        return Err(refusal);
    }
    Ok((body, &[]))
}

/// What filters will do to the response. Empty, and without a cost, for most requests.
#[derive(Default)]
pub(crate) struct Steps(Vec<Step>);

enum Step {
    Cors(cors::Answer),
    Mutate(header_mutation::Pending),
    Add(local_ratelimit::Limited),
    RateLimited(Box<ratelimit::Said>),
    Authorized(ext_authz::ToResponse),
    HealthChecked(health_check::Checked),
    Compress(Box<compressor::Pending>),
    Call(grpc_stats::Call),
    Decompress(decompressor::Pending),
    Throttle(u64),
    FailAtOnce,
}

impl Steps {
    /// Does them, the last filter's first; `ends`: there is no body. Gives back what is to be made of the body.
    pub(crate) fn apply(
        self,
        status: StatusCode,
        ends: bool,
        headers: &mut HeaderMap,
        exchange: &Exchange,
    ) -> Option<Box<Pipe>> {
        let mut pipe: Option<Box<Pipe>> = None;
        // All compressors are known to the first that has to choose.
        let offers: Vec<_> = self
            .0
            .iter()
            .filter_map(|step| match step {
                Step::Compress(pending) => pending.offer(headers),
                _ => None,
            })
            .collect();
        let mut chosen = None;
        for step in self.0.into_iter().rev() {
            match step {
                Step::Compress(pending) => {
                    let stage = pending.apply(status, ends, headers, &offers, &mut chosen);
                    if let Some(stage) = stage {
                        pipe.get_or_insert_default().push(stage);
                    }
                }
                Step::Call(call) => {
                    if let Some(stage) = call.apply(status, ends, headers, exchange) {
                        pipe.get_or_insert_default().push(stage);
                    }
                }
                Step::Throttle(rate) if !ends => pipe.get_or_insert_default().throttle(rate),
                Step::Throttle(_) => {}
                Step::Decompress(pending) => {
                    if let Some(stage) = pending.apply(ends, headers) {
                        pipe.get_or_insert_default().push(stage);
                    }
                }
                Step::Cors(answer) => answer.apply(headers),
                Step::Mutate(pending) => pending.apply(headers, exchange),
                Step::Authorized(changes) => changes.apply(headers),
                Step::Add(limited) => limited.apply(headers, exchange),
                Step::RateLimited(said) => said.apply(headers, exchange),
                Step::HealthChecked(checked) => checked.apply(headers, exchange),
                Step::FailAtOnce => health_check::fail_at_once(headers),
            }
        }
        pipe
    }
}

/// Whether a request is of the share.
pub(crate) fn happens((numerator, denominator): Fraction) -> bool {
    numerator >= denominator || numerator > 0 && fastrand::u32(0..denominator.max(1)) < numerator
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(disabled: bool) -> Filter {
        Filter { name: "f".into(), disabled, kind: Kind::Buffer(1) }
    }

    fn levels(said: &[Option<FilterOverride>; 4]) -> Vec<Option<FilterOverrides>> {
        said.iter()
            .map(|said| said.clone().map(|said| FilterOverrides(vec![("f".into(), said)])))
            .collect()
    }

    #[test]
    fn the_most_specific_level_says_whether_a_filter_is_on_and_how() {
        use FilterOverride::{Configured, Off, On};
        let two = || Configured(RouteFilter::Buffer(Some(2)));
        for (disabled, said, expected) in [
            (false, [None, None, None, None], Some(None)),
            (true, [None, None, None, None], None),
            (false, [None, Some(Off), None, None], None),
            (true, [None, Some(On), None, None], Some(None)),
            (true, [None, Some(On), Some(two()), None], Some(Some(2))),
            (true, [None, None, None, Some(two())], Some(Some(2))),
            (false, [None, Some(two()), Some(Off), None], Some(Some(2))),
            (false, [None, Some(Off), Some(two()), None], None),
        ] {
            let levels = levels(&said);
            let levels: [Option<&FilterOverrides>; 4] =
                std::array::from_fn(|at| levels[at].as_ref());
            let got = match filter(disabled).configured(&levels) {
                Err(_) => None,
                Ok(Some(RouteFilter::Buffer(most))) => Some(*most),
                Ok(_) => Some(None),
            };
            assert_eq!(got, expected, "{disabled} {said:?}");
        }
    }

    #[test]
    fn a_share_of_nothing_never_happens_and_of_everything_always() {
        assert!((0..100).all(|_| !happens((0, 100)) && happens((100, 100)) && happens((7, 5))));
    }
}
