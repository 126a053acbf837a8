//! Ring hash and Maglev: the same endpoint for the same key, and what of a request is the key.
//!
//! The addresses of upstreams differ between the two proxies, so endpoints are known by `hash_key` in their metadata; that
//! the address is hashed without it is seen with addresses at which nobody listens, through the access log.

use std::fmt::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use outrigger_integration::client::{Connection, Protocol, Request, Response, first};
use outrigger_integration::differential::{Case, Group, Observation, UpstreamKind, World};
use outrigger_integration::upstream::Reply;

use crate::parts::{bootstrap, http_listener};

const UPSTREAMS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// By the header `x-key`, to the cluster of the path.
const BY_KEY: [&str; 11] = [
    "ring",
    "ring_weighted",
    "ring_murmur",
    "ring_typed",
    "maglev",
    "maglev_weighted",
    "maglev_typed",
    "priorities",
    "panic",
    "draining",
    "bounded",
];

const ROUTES: &str = r#"
- match: {prefix: /retry}
  route:
    cluster: ring
    hash_policy: [{header: {header_name: x-key}}]
    retry_policy: &retry
      retry_on: 5xx
      num_retries: 3
      retry_back_off: {base_interval: 0.001s}
      host_selection_retry_max_attempts: 6
      retry_host_predicate:
      - name: envoy.retry_host_predicates.previous_hosts
        typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}
- match: {prefix: /table-retry}
  route:
    cluster: maglev
    hash_policy: [{header: {header_name: x-key}}]
    retry_policy: *retry
- match: {prefix: /plain-retry}
  route:
    cluster: ring
    hash_policy: [{header: {header_name: x-key}}]
    retry_policy: {retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}
- match: {prefix: /rewritten}
  route:
    cluster: ring
    hash_policy:
    - header: {header_name: x-key, regex_rewrite: {pattern: {regex: '^user-(\d+)-.*'}, substitution: '\1'}}
- {match: {prefix: /authority}, route: {cluster: ring, hash_policy: [{header: {header_name: ':authority'}}]}}
- {match: {prefix: /path}, route: {cluster: ring, prefix_rewrite: /same, hash_policy: [{header: {header_name: ':path'}}]}}
- {match: {prefix: /query}, route: {cluster: ring, hash_policy: [{query_parameter: {name: q}}]}}
- {match: {prefix: /source}, route: {cluster: ring, hash_policy: [{connection_properties: {source_ip: true}}]}}
- match: {prefix: /several}
  route:
    cluster: ring
    hash_policy:
    - header: {header_name: x-first}
      terminal: true
    - {header: {header_name: x-key}}
    - {query_parameter: {name: q}}
- {match: {prefix: /cookie}, route: {cluster: ring, hash_policy: [{cookie: {name: c}}]}}
- match: {prefix: /generated}
  route:
    cluster: ring
    hash_policy:
    - cookie: {name: c, ttl: 61.5s, path: /p, attributes: [{name: SameSite, value: Lax}, {name: Secure}]}
- {match: {prefix: /session}, route: {cluster: ring, hash_policy: [{cookie: {name: c, ttl: 0s}}]}}
- {match: {prefix: /state}, route: {cluster: ring, hash_policy: [{filter_state: {key: hashable}}]}}
- match: {prefix: /plain-state}
  route: {cluster: ring, hash_policy: [{filter_state: {key: plain}}, {filter_state: {key: none}}, {header: {header_name: x-other}}]}
- {match: {prefix: /of_balancer}, route: {cluster: of_balancer, hash_policy: [{header: {header_name: x-other}}]}}
- {match: {prefix: /of_cluster}, route: {cluster: of_cluster, hash_policy: [{header: {header_name: x-other}}]}}
- {match: {prefix: /addresses}, route: {cluster: addresses, hash_policy: [{header: {header_name: x-key}}]}}
- {match: {prefix: /table-addresses}, route: {cluster: table_addresses, hash_policy: [{header: {header_name: x-key}}]}}
- {match: {prefix: /hostnames}, route: {cluster: hostnames, hash_policy: [{header: {header_name: x-key}}]}}
"#;

/// Notes the key as what may be hashed, and as what may not.
const STATE: &str = r"
http_filters:
- name: envoy.filters.http.set_filter_state
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
    on_request_headers:
    - {object_key: hashable, factory_key: envoy.hashable_string, format_string: {text_format_source: {inline_string: '%REQ(x-key)%'}}}
    - {object_key: plain, factory_key: envoy.string, format_string: {text_format_source: {inline_string: '%REQ(x-key)%'}}}
- ROUTER
";

/// An endpoint: its upstream (or address), what is added to `lb_endpoint`.
fn endpoint(address: &str, key: &str, more: &str) -> String {
    let metadata = if key.is_empty() {
        String::new()
    } else {
        format!(", metadata: {{filter_metadata: {{envoy.lb: {{hash_key: {key}}}}}}}")
    };
    format!("{{endpoint: {{address: {address}}}{metadata}{more}}}")
}

/// An endpoint of each upstream, with these additions in turn.
fn endpoints(more: &[&str]) -> String {
    let each = UPSTREAMS.iter().zip(more.iter().cycle());
    let each = each
        .map(|(name, more)| endpoint(&format!("${{{name}}}"), &format!("the-key-of-{name}"), more));
    each.collect::<Vec<_>>().join(", ")
}

fn cluster(name: &str, groups: &str, policy: &str) -> String {
    format!(
        "- name: {name}
  type: STATIC
  connect_timeout: 2s
  load_assignment: {{cluster_name: {name}, endpoints: [{groups}]}}
  {policy}
"
    )
}

fn typed(message: &str, config: &str) -> String {
    format!(
        "load_balancing_policy: {{policies: [{{typed_extension_config: {{name: x, typed_config: {{'@type': \
         type.googleapis.com/envoy.extensions.load_balancing_policies.{message}, {config}}}}}}}]}}"
    )
}

fn clusters() -> Vec<String> {
    const WEIGHTS: [&str; 5] = [
        ", load_balancing_weight: 1",
        ", load_balancing_weight: 7",
        ", load_balancing_weight: 2",
        ", load_balancing_weight: 3",
        ", load_balancing_weight: 20",
    ];
    let group = |endpoints: &str| format!("{{lb_endpoints: [{endpoints}]}}");
    let all = group(&endpoints(&[""]));
    let weighted = group(&endpoints(&WEIGHTS));
    let one = |name: &str, more: &str| {
        endpoint(&format!("${{{name}}}"), &format!("the-key-of-{name}"), more)
    };
    let priorities = format!(
        "{{lb_endpoints: [{}, {}]}}, {{priority: 1, lb_endpoints: [{}, {}]}}",
        one("a", ""),
        one("b", ", health_status: UNHEALTHY"),
        one("c", ""),
        one("d", "")
    );
    let panic = group(&endpoints(&["", ", health_status: UNHEALTHY", ", health_status: TIMEOUT"]));
    let draining =
        group(&endpoints(&["", ", health_status: UNHEALTHY", ", health_status: DRAINING"]));
    let closed: Vec<String> = (1..=12)
        .map(|n| {
            let address =
                format!("{{socket_address: {{address: 127.9.{n}.{}, port_value: 9}}}}", n * 3);
            endpoint(&address, "", "")
        })
        .collect();
    let closed = group(&closed.join(", "));
    let hostnames: Vec<String> = UPSTREAMS
        .iter()
        .map(|name| format!("{{endpoint: {{address: ${{{name}}}, hostname: {name}.test}}}}"))
        .collect();
    let by_header = "hash_policy: [{header: {header_name: x-key}}]";
    let of_cluster = format!(
        "lb_policy: MAGLEV
  typed_extension_protocol_options:
    envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
      '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
      explicit_http_config: {{http_protocol_options: {{}}}}
      {by_header}"
    );
    vec![
        cluster("ring", &all, "lb_policy: RING_HASH"),
        cluster(
            "ring_weighted",
            &weighted,
            "lb_policy: RING_HASH
  ring_hash_lb_config: {minimum_ring_size: 100, maximum_ring_size: 777}",
        ),
        cluster(
            "ring_murmur",
            &all,
            "lb_policy: RING_HASH
  ring_hash_lb_config: {hash_function: MURMUR_HASH_2}",
        ),
        cluster(
            "ring_typed",
            &weighted,
            &typed(
                "ring_hash.v3.RingHash",
                "minimum_ring_size: 4096, hash_function: MURMUR_HASH_2",
            ),
        ),
        cluster("maglev", &all, "lb_policy: MAGLEV"),
        cluster("maglev_weighted", &weighted, "lb_policy: MAGLEV"),
        cluster("maglev_typed", &weighted, &typed("maglev.v3.Maglev", "table_size: 251")),
        cluster("priorities", &priorities, "lb_policy: RING_HASH"),
        cluster("panic", &panic, "lb_policy: MAGLEV"),
        cluster("draining", &draining, "lb_policy: MAGLEV"),
        cluster("addresses", &closed, "lb_policy: RING_HASH"),
        cluster("table_addresses", &closed, "lb_policy: MAGLEV"),
        cluster(
            "hostnames",
            &group(&hostnames.join(", ")),
            "lb_policy: RING_HASH
  common_lb_config: {consistent_hashing_lb_config: {use_hostname_for_hashing: true}}",
        )
        .replace("type: STATIC", "type: STRICT_DNS"),
        cluster(
            "of_balancer",
            &all,
            &typed("maglev.v3.Maglev", &format!("consistent_hashing_lb_config: {{{by_header}}}")),
        ),
        cluster("of_cluster", &all, &of_cluster),
        cluster(
            "bounded",
            &all,
            "lb_policy: MAGLEV
  common_lb_config: {consistent_hashing_lb_config: {hash_balance_factor: 120}}",
        ),
    ]
}

pub(crate) fn group() -> Group {
    let mut routes = ROUTES.to_owned();
    for name in BY_KEY {
        let _ = writeln!(
            routes,
            "- {{match: {{prefix: /by-key/{name}}}, route: {{cluster: {name}, hash_policy: [{{header: {{header_name: x-key}}}}]}}}}"
        );
    }
    let log = "access_log: [{name: envoy.access_loggers.file, typed_config: {'@type': \
               type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: '${DIR}/LISTEN.log', \
               log_format: {text_format_source: {inline_string: \"%REQ(:PATH)% %REQ(x-key)% %UPSTREAM_HOST%\\n\"}}}}]\n";
    Group {
        name: "hashing",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &format!("{log}{}{STATE}", crate::parts::routes(&routes)))],
            &clusters(),
        ),
        upstreams: UPSTREAMS.iter().map(|name| (*name, UpstreamKind::Plain)).collect(),
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let keys = |name: &'static str, path: &'static str, count: usize| {
        Case::custom(name, move |world| {
            Box::pin(async move {
                let requests = (0..count).map(|n| keyed(path, n));
                endpoints_of(world, requests.collect()).await
            })
        })
    };
    let few = |name: &'static str, requests: fn() -> Vec<Request>| {
        Case::custom(name, move |world| Box::pin(endpoints_of(world, requests())))
    };
    vec![
        keys("ten_thousand_keys_on_a_ring", "/by-key/ring", 10_000),
        keys("ten_thousand_keys_in_a_maglev_table", "/by-key/maglev", 10_000),
        keys("a_ring_with_weights_and_a_bound", "/by-key/ring_weighted", 2000),
        keys("a_ring_of_murmur_hashes", "/by-key/ring_murmur", 2000),
        keys("a_ring_in_the_list_of_policies", "/by-key/ring_typed", 2000),
        keys("a_maglev_table_with_weights", "/by-key/maglev_weighted", 2000),
        keys("a_maglev_table_in_the_list_of_policies", "/by-key/maglev_typed", 2000),
        keys("the_priority_is_chosen_by_the_hash", "/by-key/priorities", 1000),
        keys("in_a_panic_the_table_has_everyone", "/by-key/panic", 1000),
        keys("who_drains_does_not_count_towards_a_panic", "/by-key/draining", 200),
        keys("endpoints_by_host_name", "/hostnames", 1000),
        keys("policies_of_the_load_balancer_win", "/of_balancer", 200),
        keys("policies_of_the_cluster_win", "/of_cluster", 200),
        few("a_header_is_rewritten_before", || {
            (0..100)
                .map(|n| Request::get("/rewritten").header("x-key", &format!("user-{}-{n}", n % 9)))
                .collect()
        }),
        few("lines_of_a_header_count_in_any_order", || {
            let lines = |n: u32, values: [&str; 2]| {
                let path = "/by-key/ring";
                let second = format!("{}{n}", values[1]);
                let first = format!("{}{n}", values[0]);
                Request::get(path).header("x-key", &first).header("x-key", &second)
            };
            (0..40).flat_map(|n| [lines(n, ["foo", "bar"]), lines(n, ["bar", "foo"])]).collect()
        }),
        few("the_authority_is_a_header", || {
            (0..40).map(|n| Request::get("/authority").host(&format!("h{n}.test"))).collect()
        }),
        few("the_path_counts_as_it_is_rewritten", || {
            (0..40).map(|n| Request::get(&format!("/path/{n}?q={n}"))).collect()
        }),
        few("a_query_parameter_counts_the_first_time", || {
            let queries = ["q=1", "q=1&q=2", "a=1&q=1", "q=%31", "q=", "q", "qq=1&q=3"];
            queries.iter().map(|query| Request::get(&format!("/query?{query}"))).collect()
        }),
        few("the_source_address_is_the_trusted_client", || {
            let request = |n| {
                let client = format!("198.51.100.1, 203.0.113.{n}");
                Request::get("/source").header("x-forwarded-for", &client)
            };
            let six = Request::get("/source").header("x-forwarded-for", "2001:db8::1:0:0:7");
            (0..60).map(request).chain([six, Request::get("/source")]).collect()
        }),
        keys("what_a_filter_noted_is_hashed", "/state", 500),
        few("what_a_filter_noted_as_a_plain_text_is_not_hashed", || {
            (0..60)
                .map(|n| keyed("/plain-state", n).header("x-other", &(n % 3).to_string()))
                .collect()
        }),
        few("several_policies_are_combined_up_to_a_terminal_one", || {
            (0..40)
                .flat_map(|n| {
                    let path = format!("/several?q={n}");
                    let key = format!("{}", n % 7);
                    [
                        Request::get(&path).header("x-key", &key),
                        Request::get(&path).header("x-key", &key).header("x-first", "1"),
                        Request::get("/several").header("x-key", &key),
                    ]
                })
                .collect()
        }),
        few("a_cookie_is_found_in_any_line", || {
            let lines =
                ["c=1", "a=b; c=1", "a=b;c=1", "c=\"1\"", "c=1; c=2", "x;  c=1", "c=2", "c=3"];
            lines.iter().map(|line| Request::get("/cookie").header("cookie", line)).collect()
        }),
        Case::custom("a_missing_cookie_is_generated", |world| {
            Box::pin(generated(world, "/generated"))
        }),
        Case::custom("a_cookie_of_the_session_is_generated", |world| {
            Box::pin(generated(world, "/session"))
        }),
        Case::custom("a_retry_goes_to_the_next_place_of_the_ring", |world| {
            Box::pin(retries(world, "/retry"))
        }),
        Case::custom("a_retry_goes_to_another_slot_of_the_table", |world| {
            Box::pin(retries(world, "/table-retry"))
        }),
        Case::custom("without_a_predicate_a_retry_goes_to_the_same_endpoint", |world| {
            Box::pin(retries(world, "/plain-retry"))
        }),
        Case::custom("what_is_too_much_for_one_goes_to_others", |world| Box::pin(bounded(world))),
        Case::custom("addresses_lie_on_a_ring", |world| Box::pin(closed(world, "/addresses"))),
        Case::custom("addresses_fill_a_maglev_table", |world| {
            Box::pin(closed(world, "/table-addresses"))
        }),
    ]
}

fn keyed(path: &str, n: usize) -> Request {
    Request::get(path).header("x-key", &format!("key-{n}"))
}

/// Which endpoint each of the requests goes to, a hundred in a row.
async fn endpoints_of(world: &World, requests: Vec<Request>) -> Result<Observation> {
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let mut seen = Observation::default();
    for (row, requests) in requests.chunks(100).enumerate() {
        let mut names = String::new();
        for request in requests {
            names.push_str(&endpoint_of(&connection.send(request).await?)?);
        }
        seen.fact(&format!("from {}", row * 100), "endpoints", names);
        forget(world)?;
    }
    Ok(seen)
}

fn endpoint_of(response: &Response) -> Result<String> {
    ensure!(response.status == 200, "{response:?}");
    Ok(String::from_utf8_lossy(&response.body).into_owned())
}

fn forget(world: &World) -> Result<()> {
    for name in UPSTREAMS {
        world.upstream(name)?.take();
    }
    Ok(())
}

/// The cookie that a client without one is given, and that it is kept at its endpoint by it.
async fn generated(world: &World, path: &str) -> Result<Observation> {
    let mut seen = Observation::default();
    for n in 0..5 {
        let step = format!("client {n}");
        let address = world.address("LISTEN")?;
        let mut connection = Connection::open(address, Protocol::Http1, None).await?;
        let answer = connection.send(&Request::get(path)).await?;
        let cookie = first(&answer.headers, "set-cookie").context("no cookie")?.to_owned();
        let (value, attributes) = cookie
            .strip_prefix("c=\"")
            .and_then(|cookie| cookie.split_once('"'))
            .with_context(|| cookie.clone())?;
        seen.fact(&step, "attributes", attributes);
        let is_hash = value.len() == 16 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        seen.fact(&step, "is a hash", is_hash);

        let again = connection.send(&Request::get(path)).await?;
        let same = first(&again.headers, "set-cookie") == Some(&cookie);
        seen.fact(&step, "the same on one connection", same);
        let mut other = Connection::open(address, Protocol::Http1, None).await?;
        let request = Request::get(path).header("cookie", &format!("c={value}"));
        let kept = other.send(&request).await?;
        seen.fact(&step, "kept", endpoint_of(&kept)? == endpoint_of(&answer)?);
        seen.fact(&step, "given again", first(&kept.headers, "set-cookie").is_some());
    }
    forget(world)?;
    Ok(seen)
}

/// Which endpoints are tried, one after the other, when all of them fail.
async fn retries(world: &World, path: &str) -> Result<Observation> {
    for name in UPSTREAMS {
        world.upstream(name)?.default_reply(Some(Reply::status(503)));
    }
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    let mut seen = Observation::default();
    for n in 0..60 {
        let response = connection.send(&keyed(path, n)).await?;
        ensure!(response.status == 503, "{response:?}");
        let mut tried = Vec::new();
        for name in UPSTREAMS {
            let got = world.upstream(name)?.take();
            tried.extend(got.into_iter().map(|got| (got.sequence, name)));
        }
        tried.sort_unstable();
        let names: String = tried.iter().map(|(_, name)| *name).collect();
        seen.fact(&format!("key {n}"), "tried", names);
    }
    Ok(seen)
}

/// Which endpoints requests of the same key go to, one after the other, while none of them is answered.
async fn bounded(world: &World) -> Result<Observation> {
    let mut seen = Observation::default();
    for key in 0..3 {
        for name in UPSTREAMS {
            let late = Reply::status(200).after(Duration::from_secs(3));
            world.upstream(name)?.default_reply(Some(late));
        }
        let address = world.address("LISTEN")?;
        let mut names = String::new();
        let mut open = Vec::new();
        for _ in 0..15 {
            let request = keyed("/by-key/bounded", key);
            open.push(tokio::spawn(async move { request.send(address).await }));
            let deadline = Instant::now() + Duration::from_secs(2);
            let name = loop {
                let mut reached = UPSTREAMS.iter().filter_map(|name| {
                    let got = world.upstream(name).ok()?.take();
                    (!got.is_empty()).then_some(*name)
                });
                if let Some(name) = reached.next() {
                    break name;
                }
                ensure!(Instant::now() < deadline, "no endpoint was reached");
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            names.push_str(name);
        }
        for task in open {
            let outcome = task.await?;
            ensure!(outcome.status() == 200, "{outcome:?}");
        }
        seen.fact(&format!("key {key}"), "endpoints", names);
    }
    Ok(seen)
}

/// Which address each of the keys goes to, where nobody listens.
async fn closed(world: &World, path: &str) -> Result<Observation> {
    const KEYS: usize = 1000;
    let mut connection = Connection::open(world.address("LISTEN")?, Protocol::Http1, None).await?;
    for n in 0..KEYS {
        let response = connection.send(&keyed(path, n)).await?;
        ensure!(response.status == 503, "{response:?}");
    }
    let log = world.folder.path().join("LISTEN.log");
    let deadline = Instant::now() + Duration::from_secs(15);
    loop {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter_map(|line| line.strip_prefix(&format!("{path} ")));
        let lines: Vec<&str> = lines.collect();
        if lines.len() == KEYS {
            let mut seen = Observation::default();
            for (row, lines) in lines.chunks(10).enumerate() {
                seen.fact(&format!("from {}", row * 10), "endpoints", lines.join(", "));
            }
            return Ok(seen);
        }
        ensure!(Instant::now() < deadline, "{} lines", lines.len());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
