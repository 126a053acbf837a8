//! STRICT_DNS and LOGICAL_DNS: host names are resolved again and again, and every address is an endpoint, or the first.
//!
//! Each host name of a cluster has a task of its own, as in Envoy: it looks up, tells the [`super::manager`], and sleeps
//! for the refresh rate, for the records' time to live, or for the back-off after a failure. A failure changes nothing:
//! the last good addresses stay.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name as RecordName, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::sync::mpsc::UnboundedSender;

use super::cluster::ClusterId;
use crate::config::cluster::{Dns, DnsFamily, DnsPace};
use crate::config::endpoint::{EndpointAddress, LoadAssignment};
use crate::stats::{DnsCells, Registry, Scope, Sharded};

/// What a lookup found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The addresses; none if the name exists without one, or does not exist.
    pub(super) addresses: Vec<IpAddr>,
    /// For how long they hold.
    pub(super) ttl: Duration,
}

/// Why a lookup failed: for a person.
pub(super) type LookupError = String;

/// Looks up addresses. Tests put their own in the place of the system's.
pub(super) trait Lookup: Send + Sync {
    /// The addresses of a name. A name that does not exist has none; failures are those of the lookup itself.
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        family: DnsFamily,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send + 'a>>;
}

/// Looks up for every cluster, and counts.
#[derive(Clone)]
pub(super) struct Resolver {
    lookup: Arc<dyn Lookup>,
    cells: Arc<Sharded<DnsCells>>,
}

impl Resolver {
    /// By the system's configuration: `/etc/hosts` and `/etc/resolv.conf`.
    pub(super) fn new(registry: &Registry) -> Self {
        Self::with(registry, Arc::new(System::default()))
    }

    pub(super) fn with(registry: &Registry, lookup: Arc<dyn Lookup>) -> Self {
        Self { lookup, cells: registry.scope(Scope::Root("dns")) }
    }

    async fn resolve(&self, host: &str, family: DnsFamily) -> Result<Answer, LookupError> {
        let cells = self.cells.local();
        cells.resolve_total.inc();
        cells.pending_resolutions.inc();
        let answer = self.lookup.lookup(host, family).await;
        let cells = self.cells.local();
        cells.pending_resolutions.dec();
        if answer.is_err() {
            cells.resolve_failure.inc();
        }
        answer
    }
}

/// A host name was looked up.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) cluster: ClusterId,
    /// Which [`Targets`] of the cluster: a change of its host names makes new ones.
    incarnation: u64,
    /// Which of the host names.
    target: usize,
    pub(super) addresses: Result<Vec<IpAddr>, LookupError>,
}

/// The host names of one cluster, being resolved for as long as this is alive.
pub(super) struct Targets {
    incarnation: u64,
    dns: Dns,
    targets: Vec<Target>,
}

struct Target {
    /// The last good answer, sorted.
    addresses: Option<Vec<IpAddr>>,
    attempted: bool,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Targets {
    /// Starts to resolve the host names of a cluster.
    pub(super) fn start(
        cluster: ClusterId,
        dns: &Dns,
        resolver: &Resolver,
        resolved: &UnboundedSender<Resolved>,
    ) -> Self {
        let incarnation = fastrand::u64(..);
        let targets = names(&dns.assignment).enumerate().map(|(target, host)| {
            let name = Name { host: host.into(), family: dns.family, logical: dns.logical };
            let pace = dns.pace;
            let (resolver, resolved) = (resolver.clone(), resolved.clone());
            let task = tokio::spawn(async move {
                keep_resolving(&name, &resolver, pace, |addresses| {
                    let message = Resolved { cluster, incarnation, target, addresses };
                    resolved.send(message).is_ok()
                })
                .await;
            });
            Target { addresses: None, attempted: false, task }
        });
        Self { incarnation, targets: targets.collect(), dns: dns.clone() }
    }

    /// Goes on as the targets of `dns`, if they are the same names at the same pace. Weights, localities and the rest may
    /// differ.
    pub(super) fn adopt(self, dns: &Dns) -> Option<Self> {
        let Dns { assignment, logical, family, pace } = &self.dns;
        let serves = (*logical, *family, *pace) == (dns.logical, dns.family, dns.pace)
            && names(assignment).eq(names(&dns.assignment));
        serves.then(|| Self { dns: dns.clone(), ..self })
    }

    /// Takes an answer. Returns whether the addresses changed; `None` if it was not meant for these targets.
    pub(super) fn take(&mut self, resolved: Resolved) -> Option<bool> {
        if resolved.incarnation != self.incarnation {
            return None;
        }
        let target = self.targets.get_mut(resolved.target)?;
        target.attempted = true;
        let Ok(mut addresses) = resolved.addresses else { return Some(false) };
        // Servers rotate their answers: the order says nothing.
        addresses.sort_unstable();
        addresses.dedup();
        let changed = target.addresses.as_ref() != Some(&addresses);
        target.addresses = Some(addresses);
        Some(changed)
    }

    /// Whether every name was looked up at least once.
    pub(super) fn is_complete(&self) -> bool {
        self.targets.iter().all(|target| target.attempted)
    }

    /// The assignment with addresses in the place of names; `None` while there are names and none has an answer. Names
    /// without one have no endpoint yet.
    pub(super) fn assignment(&self) -> Option<Arc<LoadAssignment>> {
        let unanswered = self.targets.iter().all(|target| target.addresses.is_none());
        if unanswered && !self.targets.is_empty() {
            return None;
        }
        let mut targets = self.targets.iter();
        let mut resolved = LoadAssignment::clone(&self.dns.assignment);
        for group in &mut resolved.localities {
            let mut endpoints = Vec::with_capacity(group.endpoints.len());
            for mut endpoint in group.endpoints.drain(..) {
                let EndpointAddress::Name { host, port } = &endpoint.address else {
                    if let EndpointAddress::Ip(address) = &endpoint.address
                        && endpoint.hostname.is_empty()
                    {
                        endpoint.hostname = address.ip().to_string().into();
                    }
                    endpoints.push(endpoint);
                    continue;
                };
                let hostname: Arc<str> = match &*endpoint.hostname {
                    "" => Arc::from(&**host),
                    _ => Arc::clone(&endpoint.hostname),
                };
                let addresses = targets.next().and_then(|target| target.addresses.as_deref());
                for &address in addresses.unwrap_or_default() {
                    let mut endpoint = endpoint.clone();
                    endpoint.address = EndpointAddress::Ip((address, *port).into());
                    endpoint.hostname = Arc::clone(&hostname);
                    endpoints.push(endpoint);
                }
            }
            group.endpoints = endpoints;
        }
        Some(Arc::new(resolved))
    }
}

/// The host names of an assignment, in order.
fn names(assignment: &LoadAssignment) -> impl Iterator<Item = &str> {
    assignment.localities.iter().flat_map(|group| &group.endpoints).filter_map(|endpoint| {
        match &endpoint.address {
            EndpointAddress::Name { host, .. } => Some(&**host),
            EndpointAddress::Ip(_) | EndpointAddress::Pipe(_) => None,
        }
    })
}

/// A host name, and what of its addresses counts.
struct Name {
    host: Box<str>,
    family: DnsFamily,
    /// Only the first address counts, and to have none is a failure.
    logical: bool,
}

impl Name {
    async fn resolve(&self, resolver: &Resolver) -> Result<Answer, LookupError> {
        let mut answer = resolver.resolve(&self.host, self.family).await?;
        if self.logical {
            if answer.addresses.is_empty() {
                return Err("it has no address".to_owned());
            }
            answer.addresses.truncate(1);
        }
        Ok(answer)
    }
}

/// Looks a name up for ever, or until `tell` says that nobody listens.
async fn keep_resolving(
    name: &Name,
    resolver: &Resolver,
    pace: DnsPace,
    tell: impl Fn(Result<Vec<IpAddr>, LookupError>) -> bool,
) {
    let mut failures = 0u32;
    loop {
        let answer = name.resolve(resolver).await;
        let pause = match &answer {
            Ok(answer) => {
                failures = 0;
                let pause = match pace.respect_ttl && !answer.ttl.is_zero() {
                    true => answer.ttl.max(pace.min_ttl),
                    false => pace.refresh_rate,
                };
                pause.saturating_add(pace.jitter.mul_f64(fastrand::f64()))
            }
            Err(error) => {
                // Once an outage, not once an attempt.
                if failures == 0 {
                    tracing::warn!(host = %name.host, error, "host name cannot be resolved");
                }
                failures = failures.saturating_add(1);
                match pace.failure_refresh {
                    Some((base, max)) => back_off(base, max, failures),
                    None => pace.refresh_rate,
                }
            }
        };
        if !tell(answer.map(|answer| answer.addresses)) {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// The pause after the `failures`-th failure in a row: uniform below the base, doubled with each, up to `max`.
fn back_off(base: Duration, max: Duration, failures: u32) -> Duration {
    let bound = base.saturating_mul(2u32.saturating_pow(failures - 1)).min(max);
    bound.mul_f64(fastrand::f64()).max(Duration::from_millis(1))
}

/// The system's resolver. `/etc/hosts` and `/etc/resolv.conf` are read again when they change.
#[derive(Default)]
struct System(Mutex<Option<Arc<Loaded>>>);

struct Loaded {
    /// When the two files were written last.
    written: [Option<SystemTime>; 2],
    hosts: Hosts,
    config: ResolverConfig,
    options: hickory_resolver::config::ResolverOpts,
}

impl System {
    fn load(&self) -> Arc<Loaded> {
        let written = ["/etc/hosts", "/etc/resolv.conf"]
            .map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok());
        let mut loaded = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = loaded.as_ref().filter(|loaded| loaded.written == written) {
            return Arc::clone(loaded);
        }
        // Without a name server only the hosts file and `localhost` resolve, which is what such a machine wants.
        let (config, mut options) =
            hickory_resolver::system_conf::read_system_conf().unwrap_or_default();
        // The refresh rate decides how often a server is asked; a cache would answer in its place.
        options.cache_size = 0;
        let hosts = Hosts::from_system().unwrap_or_default();
        let new = Arc::new(Loaded { written, hosts, config, options });
        *loaded = Some(Arc::clone(&new));
        new
    }
}

impl Lookup for System {
    fn lookup<'a>(
        &'a self,
        host: &'a str,
        family: DnsFamily,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, LookupError>> + Send + 'a>> {
        Box::pin(async move {
            let loaded = self.load();
            if let Some(addresses) = from_hosts(&loaded.hosts, host, family) {
                return Ok(Answer { addresses, ttl: Duration::ZERO });
            }
            let mut options = loaded.options.clone();
            options.ip_strategy = match family {
                DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
                DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
                DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
                DnsFamily::Auto => LookupIpStrategy::Ipv6thenIpv4,
                DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
            };
            let provider = TokioRuntimeProvider::default();
            let mut builder = TokioResolver::builder_with_config(loaded.config.clone(), provider);
            *builder.options_mut() = options;
            let resolver = builder.build().map_err(|error| error.to_string())?;
            match resolver.lookup_ip(host).await {
                Ok(found) => Ok(Answer {
                    addresses: found.iter().collect(),
                    ttl: found.valid_until().saturating_duration_since(std::time::Instant::now()),
                }),
                Err(error) if error.is_no_records_found() || error.is_nx_domain() => {
                    Ok(Answer { addresses: Vec::new(), ttl: Duration::ZERO })
                }
                Err(error) => Err(error.to_string()),
            }
        })
    }
}

/// What the hosts file says of a name: nothing else is asked then, so that it works without a network.
fn from_hosts(hosts: &Hosts, host: &str, family: DnsFamily) -> Option<Vec<IpAddr>> {
    let name = RecordName::from_utf8(host).ok()?;
    let of = |kind: RecordType| -> Vec<IpAddr> {
        let found = hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let records = found.iter().flat_map(|found| found.answers());
        records.filter_map(|record| record.data.ip_addr()).collect()
    };
    let first_of = |first: RecordType, second: RecordType| match of(first) {
        none if none.is_empty() => of(second),
        some => some,
    };
    let addresses = match family {
        DnsFamily::V4Only => of(RecordType::A),
        DnsFamily::V6Only => of(RecordType::AAAA),
        DnsFamily::V4Preferred => first_of(RecordType::A, RecordType::AAAA),
        DnsFamily::Auto => first_of(RecordType::AAAA, RecordType::A),
        DnsFamily::All => [of(RecordType::A), of(RecordType::AAAA)].concat(),
    };
    (!addresses.is_empty()).then_some(addresses)
}
