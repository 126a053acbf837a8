use super::*;
use crate::model::Config;
use crate::model::duration;
use crate::model::plan::{Plan, PlannedAction, plan};
use proptest::prelude::*;

/// The documents of the interface, one of each kind, with every field that this version knows.
const EVERYTHING: &str = r#"
kind: Mesh
name: default
spec: {trustDomain: outrigger.local, mtls: strict, defaultAction: allow, outbound: passthrough, leafTtl: 24h}
---
kind: Service
name: api
labels: {team: shop}
spec:
  ports: [{port: 9000, protocol: http}]
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
  loadBalancer: {policy: least_request}
  outlierDetection: {consecutive5xx: 5, consecutiveGatewayFailure: 5, interval: 10s, baseEjectionTime: 30s, maxEjectionPercent: 50, alwaysEjectOne: true}
  circuitBreaker: {maxConnections: 1024, maxPendingRequests: 1024, maxRequests: 1024, maxRetries: 3, retryBudgetPercent: 20}
  timeouts: {request: 15s, connect: 2s, idle: 1h}
  retry: {attempts: 2, on: [connect-failure, refused-stream, gateway-error], perTryTimeout: 2s, backoff: 25ms}
---
kind: Route
name: api-canary
spec:
  hosts: [api]
  rules:
  - matches: [{path: {type: PathPrefix, value: /v1}, method: GET, headers: [{name: X-Canary, value: "1"}], queryParams: [{name: q, type: RegularExpression, value: "a.*"}]}]
    filters:
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: b}], add: [{name: x-b, value: c}], remove: [x-c]}}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}
    - {type: URLRewrite, urlRewrite: {hostname: api.internal, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}
    backendRefs: [{name: api, subset: v1, weight: 90}, {name: api, subset: v2, port: 9000, weight: 10}]
    timeouts: {request: 2s}
    retry: {attempts: 1}
---
kind: Policy
name: web-may-read-api
spec: {to: [{service: api}], action: allow, from: [{service: web}], methods: [GET], paths: ["/v1/*", /health]}
---
kind: Gateway
name: edge
spec: {listeners: [{name: http, port: 8080, protocol: http, hostname: "*"}]}
---
kind: Route
name: outside
spec:
  gateway: edge
  hosts: ["*"]
  rules:
  - matches: [{path: {type: Exact, value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: a.example, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 301}}]
  - backendRefs: [{name: api}]
---
kind: Service
name: legacy
spec: {ports: [{port: 5432, protocol: tcp}]}
---
kind: Endpoint
name: legacy-1
spec: {service: legacy, address: 127.0.0.1, port: 5432, weight: 1, labels: {version: v1}, locality: {region: r, zone: z}}
"#;

fn valid(text: &str) -> Vec<Document> {
    let (documents, problems) = documents(text);
    assert_eq!(problems, [], "{text}");
    documents
}

fn planned(text: &str) -> Plan {
    plan(&Config::default(), &valid(text)).unwrap()
}

/// (code, field, line, column) of each problem.
fn problems(text: &str) -> Vec<(Code, String, usize, usize)> {
    documents(text).1.into_iter().map(summary).collect()
}

fn summary(problem: Problem) -> (Code, String, usize, usize) {
    let Problem { code, field, line, column, .. } = problem;
    (code, field.unwrap_or_default(), line.unwrap(), column.unwrap())
}

/// The one problem of a Service whose spec is `spec`.
fn service_problem(spec: &str) -> Problem {
    let text = format!(
        "kind: Service\nname: api\nspec: {{ports: [{{port: 1, protocol: http}}], {spec}}}\n"
    );
    one(documents(&text).1)
}

/// The one problem of a Route with one rule that has a backend, and `rule`.
fn rule_problem(rule: &str) -> Problem {
    one(documents(&route(&format!("backendRefs: [{{name: api}}], {rule}"))).1)
}

fn route(rule: &str) -> String {
    format!("kind: Route\nname: r\nspec: {{hosts: [api], rules: [{{{rule}}}]}}\n")
}

fn one(mut problems: Vec<Problem>) -> Problem {
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn every_kind_of_the_interface_is_read() {
    let plan = planned(EVERYTHING);
    // An `allow` beside `defaultAction: allow` says nothing.
    let warned: Vec<_> = plan.warnings.iter().map(|it| it.code).collect();
    assert_eq!(warned, [Code::NoEffect]);
    assert_eq!(plan.config.objects().count(), 8);
    let api = plan.config.service("api").unwrap();
    assert_eq!(api.labels.get("team").unwrap(), "shop");
    assert_eq!(api.timeouts.idle, Some(std::time::Duration::from_secs(3600)));
    let route = plan.config.routes().next().unwrap();
    assert_eq!(route.rules[0].matches[0].headers[0].name, "x-canary", "header names have no case");
    assert_eq!(route.rules[0].backend_refs[1].port, Some(9000));
}

#[test]
fn what_is_printed_reads_back_as_the_same_objects() {
    for document in valid(EVERYTHING) {
        let Content::Object(object) = &document.content else { panic!() };
        let printed = serde_json::to_string_pretty(object).unwrap();
        assert_eq!(valid(&printed)[0].content, document.content, "{printed}");
    }
}

#[test]
fn defaults_are_those_of_the_interface() {
    let documents = valid(
        "kind: Mesh\nname: default\n---\nkind: Service\nname: api\nspec: {ports: [{port: 1, protocol: http}], outlierDetection: {}}\n",
    );
    let printed: Vec<_> = documents
        .iter()
        .map(|document| match &document.content {
            Content::Object(object) => serde_json::to_value(object).unwrap(),
            Content::Delete(..) => panic!(),
        })
        .collect();
    assert_eq!(
        printed[0],
        serde_json::json!({"kind": "Mesh", "name": "default", "spec": {
            "trustDomain": "outrigger.local", "mtls": "strict", "defaultAction": "allow",
            "outbound": "passthrough", "leafTtl": "24h"}})
    );
    assert_eq!(
        printed[1],
        serde_json::json!({"kind": "Service", "name": "api", "spec": {
            "ports": [{"port": 1, "protocol": "http"}],
            "loadBalancer": {"policy": "least_request"},
            "outlierDetection": {"consecutive5xx": 5, "interval": "10s", "baseEjectionTime": "30s",
                "maxEjectionPercent": 50, "alwaysEjectOne": true}}})
    );
}

#[test]
fn every_problem_of_the_input_is_named_at_once_with_its_place() {
    let text = "\
kind: Service
name: Api
spec:
  ports:
  - port: 70000
    protocol: htp
  loadBalancer: {policy: leest_request}
  timeouts: {request: 15}
  outlier: {}
---
kind: Servce
name: x
---
kind: Route
name: r
spec:
  hosts: []
";
    let path = |path: &str| path.to_owned();
    assert_eq!(
        problems(text),
        [
            (Code::InvalidValue, path("name"), 2, 7),
            (Code::InvalidValue, path("spec.ports[0].port"), 5, 11),
            (Code::UnknownValue, path("spec.ports[0].protocol"), 6, 15),
            (Code::UnknownValue, path("spec.loadBalancer.policy"), 7, 26),
            (Code::InvalidValue, path("spec.timeouts.request"), 8, 23),
            (Code::UnknownField, path("spec.outlier"), 9, 3),
            (Code::UnknownValue, path("kind"), 11, 7),
            (Code::MissingField, path("spec.rules"), 17, 3),
            (Code::InvalidValue, path("spec.hosts"), 17, 10),
        ]
    );
}

#[test]
fn problems_carry_object_suggestion_and_choices() {
    let problem = service_problem("loadBalancer: {policy: leest_request}");
    assert_eq!(problem.kind.as_deref(), Some("Service"));
    assert_eq!(problem.name.as_deref(), Some("api"));
    assert_eq!(problem.suggestion.as_deref(), Some("least_request"));
    assert_eq!(
        problem.choices,
        ["round_robin", "least_request", "peak_ewma", "random", "ring_hash", "maglev"]
    );

    let problem = service_problem("outlierDetction: {}");
    assert_eq!(problem.code, Code::UnknownField);
    assert_eq!(problem.suggestion.as_deref(), Some("outlierDetection"));
    assert!(problem.choices.iter().any(|field| field == "circuitBreaker"));

    let problem = one(documents("kind: Polcy\nname: p\nspec: {anything: 1}\n").1);
    assert_eq!(problem.suggestion.as_deref(), Some("Policy"));
}

#[test]
fn what_this_version_cannot_do_is_refused_and_says_so() {
    let problem = rule_problem("filters: [{type: RequestMirror, requestMirror: {}}]");
    assert_eq!(problem.code, Code::NotSupported);
    assert_eq!(problem.field.as_deref(), Some("spec.rules[0].filters[0].type"));
    let gateway = |listener| {
        one(documents(&format!(
            "kind: Gateway\nname: g\nspec: {{listeners: [{{name: a, port: 1, {listener}}}]}}"
        ))
        .1)
    };
    assert_eq!(gateway("protocol: https").code, Code::NotSupported);
    assert_eq!(gateway("protocol: http, tls: {mode: passthrough}").code, Code::NotSupported);
    assert_eq!(gateway("protocol: ftp").code, Code::UnknownValue);
    let endpoint = "kind: Endpoint\nname: e\nspec: {service: s, address: db.example, port: 1}";
    assert_eq!(one(documents(endpoint).1).code, Code::NotSupported);
}

#[test]
fn load_balancing_and_health_checks_are_read_with_their_defaults() {
    let service = |spec: &str| {
        let text = format!(
            "{{kind: Service, name: api, spec: {{ports: [{{port: 1, protocol: http}}], {spec}}}}}"
        );
        planned(&text).config.service("api").unwrap().clone()
    };
    let it = service(
        "loadBalancer: {policy: ring_hash, hashOn: [{header: X-User}, {cookie: s}, {query: q}, {sourceIp: true}], localityWeighted: true}",
    );
    let text = serde_json::to_value(&it.load_balancer).unwrap();
    let keys = serde_json::json!([{"header": "x-user"}, {"cookie": "s"}, {"query": "q"}, {"sourceIp": true}]);
    assert_eq!((&text["hashOn"], &text["localityWeighted"]), (&keys, &true.into()));
    let it = service(
        "loadBalancer: {policy: round_robin, slowStart: 30s}, healthCheck: {http: {path: /health}}",
    );
    assert_eq!(serde_json::to_value(&it.load_balancer).unwrap()["slowStart"], "30s");
    assert_eq!(
        serde_json::to_value(&it.health_check).unwrap(),
        serde_json::json!({"http": {"path": "/health"}, "interval": "5s", "timeout": "1s", "unhealthyThreshold": 3, "healthyThreshold": 2})
    );
    let again = serde_json::to_string(&Object::Service(it.clone())).unwrap();
    assert_eq!(planned(&again).config.service("api").unwrap(), &it, "what is printed is read back");
}

#[test]
fn load_balancing_that_makes_no_sense_is_refused_where_it_stands() {
    for (spec, code, field) in [
        ("loadBalancer: {policy: maglev}", Code::MissingField, "spec.loadBalancer.hashOn"),
        (
            "loadBalancer: {hashOn: [{sourceIp: true}]}",
            Code::InvalidValue,
            "spec.loadBalancer.hashOn",
        ),
        (
            "loadBalancer: {policy: random, slowStart: 1s}",
            Code::InvalidValue,
            "spec.loadBalancer.slowStart",
        ),
        (
            "loadBalancer: {policy: maglev, hashOn: [{header: a, cookie: b}]}",
            Code::InvalidValue,
            "spec.loadBalancer.hashOn[0]",
        ),
        (
            "loadBalancer: {policy: maglev, hashOn: [{sourceIp: false}]}",
            Code::InvalidValue,
            "spec.loadBalancer.hashOn[0].sourceIp",
        ),
        ("healthCheck: {interval: 5s}", Code::InvalidValue, "spec.healthCheck"),
        ("healthCheck: {http: {}}", Code::MissingField, "spec.healthCheck.http.path"),
        ("healthCheck: {grpc: {}}", Code::InvalidValue, "spec.healthCheck.grpc"),
        (
            "healthCheck: {tcp: {}, healthyThreshold: 0}",
            Code::InvalidValue,
            "spec.healthCheck.healthyThreshold",
        ),
    ] {
        let problem = service_problem(spec);
        assert_eq!((problem.code, problem.field.as_deref()), (code, Some(field)), "{spec}");
    }
}

#[test]
fn faults_are_read_with_their_defaults_and_checked() {
    let text = route(
        "backendRefs: [{name: api}], filters: [{type: FaultInjection, faultInjection: {delay: {duration: 2s, percent: 50}, abort: {httpStatus: 503}}}]",
    );
    let (documents, problems) = documents(&text);
    assert_eq!(problems, []);
    let Content::Object(object) = &documents[0].content else { panic!() };
    let printed = serde_json::to_value(object).unwrap();
    assert_eq!(
        printed["spec"]["rules"][0]["filters"][0]["faultInjection"],
        serde_json::json!({"delay": {"duration": "2s", "percent": 50}, "abort": {"httpStatus": 503, "percent": 100}})
    );
    for (fault, field) in [
        ("{}", "faultInjection.abort"),
        ("{abort: {}}", "faultInjection.abort.httpStatus"),
        ("{abort: {httpStatus: 700}}", "faultInjection.abort.httpStatus"),
        ("{delay: {duration: 0s}}", "faultInjection.delay.duration"),
        ("{delay: {duration: 1s, percent: 101}}", "faultInjection.delay.percent"),
    ] {
        let problem =
            rule_problem(&format!("filters: [{{type: FaultInjection, faultInjection: {fault}}}]"));
        assert_eq!(problem.field.unwrap(), format!("spec.rules[0].filters[0].{field}"));
    }
}

#[test]
fn values_out_of_their_range_are_refused() {
    for spec in [
        "timeouts: {request: -5s}",
        "timeouts: {request: 5}",
        "timeouts: {request: 1.5s}",
        "timeouts: {connect: 0s}",
        "retry: {attempts: 11}",
        "retry: {attempts: 1.0}",
        "retry: {on: []}",
        "retry: {on: [reset, reset]}",
        "retry: {perTryTimeout: 0ms}",
        "outlierDetection: {maxEjectionPercent: 101}",
        "outlierDetection: {consecutive5xx: 0}",
        "outlierDetection: {interval: 0s}",
        "circuitBreaker: {maxRequests: -1}",
        "circuitBreaker: {maxRequests: 4294967296}",
        "circuitBreaker: {retryBudgetPercent: 101}",
        "subsets: [{name: v1, labels: {}}]",
        "subsets: [{name: V1, labels: {a: b}}]",
        "subsets: [{name: a, labels: {a: b}}, {name: a, labels: {a: c}}]",
        "subsets: [{name: a, labels: {'a b': c}}]",
    ] {
        let problem = service_problem(spec);
        assert!(
            matches!(problem.code, Code::InvalidValue | Code::Duplicate),
            "{spec}: {problem:?}"
        );
        assert!(problem.field.unwrap().starts_with("spec."), "{spec}");
    }
    for rule in [
        "matches: [{path: {value: v1}}]",
        "matches: [{path: {value: /a?b}}]",
        "matches: [{path: {type: RegularExpression, value: '('}}]",
        "matches: [{path: {type: RegularExpression, value: '(a{1000}){1000}'}}]",
        "matches: [{path: {type: RegularExpression, value: 'a)|(b'}}]",
        "matches: [{method: get}]",
        "matches: [{headers: [{name: 'a b', value: x}]}]",
        "matches: [{headers: [{name: a, value: x}, {name: A, value: y}]}]",
        "timeouts: {request: 1d}",
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: a}]}}]",
        "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: 'b\u{1}'}]}}]",
        "filters: [{type: RequestRedirect, requestRedirect: {port: 1}}]",
        "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]",
    ] {
        let problem = rule_problem(rule);
        assert!(
            matches!(problem.code, Code::InvalidValue | Code::Duplicate | Code::Syntax),
            "{rule}: {problem:?}"
        );
    }
}

#[test]
fn a_rule_goes_somewhere() {
    assert_eq!(one(documents(&route("matches: []")).1).code, Code::MissingField);
    assert_eq!(
        one(documents(&route("backendRefs: [{name: a, weight: 0}, {name: b, weight: 0}]")).1).code,
        Code::InvalidValue
    );
    assert_eq!(one(documents(&route("backendRefs: []")).1).code, Code::InvalidValue);
    let star = one(documents(
        "kind: Route\nname: r\nspec: {hosts: ['*'], rules: [{backendRefs: [{name: a}]}]}",
    )
    .1);
    assert_eq!(star.field.as_deref(), Some("spec.hosts[0]"));
}

#[test]
fn leaf_certificates_live_ten_seconds_or_longer() {
    let mesh =
        |ttl: &str| documents(&format!("kind: Mesh\nname: default\nspec: {{leafTtl: {ttl}}}")).1;
    assert_eq!(mesh("10s"), []);
    assert_eq!(one(mesh("9s")).field.as_deref(), Some("spec.leafTtl"));
    assert_eq!(one(mesh("8761h")).field.as_deref(), Some("spec.leafTtl"));
}

#[test]
fn there_is_one_mesh_and_it_is_called_default() {
    let problem = one(documents("kind: Mesh\nname: other\n").1);
    assert_eq!(problem.choices, ["default"]);
}

#[test]
fn names_are_dns_labels() {
    for name in ["a", "a-1", &"a".repeat(63)] {
        assert_eq!(check_name(name), Ok(()));
    }
    for name in ["", "A", "a.b", "-a", "a-", "a_b", "ä", " a", &"a".repeat(64)] {
        assert!(check_name(name).is_err(), "{name}");
    }
}

#[test]
fn an_unquoted_number_where_a_text_belongs_says_how_to_write_it() {
    let problem = rule_problem("matches: [{headers: [{name: x-canary, value: 1}]}]");
    assert_eq!(problem.code, Code::WrongType);
    assert!(problem.reason.contains("put it in quotes"));
}

#[test]
fn lists_of_objects_and_answers_of_the_api_are_read_too() {
    let service = r#"{"kind": "Service", "name": "a", "spec": {"ports": [{"port": 1, "protocol": "http"}]}, "revision": 7, "status": {"state": "Accepted"}}"#;
    for text in [service.to_owned(), format!("[{service}]"), format!("{{\"items\": [{service}]}}")]
    {
        assert_eq!(valid(&text)[0].name(), "a");
    }
    assert!(valid("").is_empty() && valid("---\n# nothing\n").is_empty() && valid("[]").is_empty());
    assert_eq!(one(documents("just words").1).code, Code::WrongType);
}

#[test]
fn a_document_may_delete() {
    let plan = planned(EVERYTHING);
    let next = crate::model::plan::plan(
        &plan.config,
        &valid("{kind: Policy, name: web-may-read-api, delete: true}\n---\n{kind: Policy, name: none, delete: true}"),
    )
    .unwrap();
    let actions: Vec<_> = next.objects.iter().map(|object| object.action).collect();
    assert_eq!(actions, [PlannedAction::Deleted, PlannedAction::Unchanged]);
    assert_eq!(next.config.policies().count(), 0);
}

#[test]
fn a_broken_reference_is_named_at_its_field_with_the_nearest_name() {
    let text = "\
kind: Service
name: api
spec: {ports: [{port: 80, protocol: http}, {port: 81, protocol: tcp}], subsets: [{name: v1, labels: {v: '1'}}]}
---
kind: Route
name: r
spec:
  gateway: edge
  hosts: ['*']
  rules:
  - backendRefs:
    - {name: apo}
    - {name: api, subset: v2}
    - {name: api, port: 82}
    - {name: api, port: 81}
---
kind: Policy
name: p
spec: {to: [{service: web}], action: deny}
---
kind: Endpoint
name: e
spec: {service: api, address: 10.0.0.1, port: 83}
---
kind: Endpoint
name: f
spec: {service: ap, address: 10.0.0.1, port: 80}
";
    let problems = plan(&Config::default(), &valid(text)).unwrap_err();
    assert_eq!(problems[1].suggestion.as_deref(), Some("api"));
    assert_eq!(problems[2].suggestion.as_deref(), Some("v1"));
    let path = |path: &str| path.to_owned();
    assert_eq!(
        problems.into_iter().map(summary).collect::<Vec<_>>(),
        [
            (Code::NotFound, path("spec.gateway"), 8, 12),
            (Code::NotFound, path("spec.rules[0].backendRefs[0].name"), 12, 14),
            (Code::NotFound, path("spec.rules[0].backendRefs[1].subset"), 13, 27),
            (Code::NotFound, path("spec.rules[0].backendRefs[2].port"), 14, 25),
            (Code::InvalidValue, path("spec.rules[0].backendRefs[3].port"), 15, 25),
            (Code::NotFound, path("spec.to[0].service"), 19, 23),
            (Code::NotFound, path("spec.port"), 23, 47),
            (Code::NotFound, path("spec.service"), 27, 17),
        ]
    );
}

#[test]
fn objects_may_come_in_any_order() {
    let mut documents = valid(EVERYTHING);
    documents.reverse();
    assert!(plan(&Config::default(), &documents).is_ok());
}

#[test]
fn deleting_what_is_used_names_every_user() {
    let base = planned(EVERYTHING).config;
    let problem = one(plan(&base, &valid("{kind: Service, name: api, delete: true}")).unwrap_err());
    assert_eq!((problem.code, problem.line), (Code::InUse, Some(1)));
    for user in ["Route `api-canary`", "Route `outside`", "Policy `web-may-read-api`"] {
        assert!(problem.reason.contains(user), "{}", problem.reason);
    }
    let all = "{kind: Service, name: api, delete: true}\n---\n{kind: Route, name: api-canary, delete: true}\n---\n{kind: Route, name: outside, delete: true}\n---\n{kind: Policy, name: web-may-read-api, delete: true}";
    assert!(plan(&base, &valid(all)).is_ok(), "with its users it may go");
}

#[test]
fn a_subset_or_port_that_is_used_cannot_be_taken_away() {
    let base = planned(EVERYTHING).config;
    let change = |ports: &str| {
        let text = format!("kind: Service\nname: api\nspec:\n  ports: [{ports}]\n");
        plan(&base, &valid(&text)).unwrap_err()
    };
    let problems = change("{port: 9000, protocol: http}");
    assert_eq!(one(problems.clone()).code, Code::InUse);
    assert!(problems[0].reason.contains("has no subset `v1`"), "{}", problems[0].reason);
    let fields: Vec<_> =
        change("{port: 9001, protocol: tcp}").into_iter().map(|it| it.field.unwrap()).collect();
    assert_eq!(fields, ["spec.subsets", "spec.ports"]);
}

#[test]
fn one_object_twice_in_one_input_is_refused() {
    let text = "{kind: Gateway, name: g, spec: {listeners: [{name: a, port: 1, protocol: http}]}}\n---\n{kind: Gateway, name: g, delete: true}";
    let problem = one(plan(&Config::default(), &valid(text)).unwrap_err());
    assert_eq!((problem.code, problem.line), (Code::Duplicate, Some(3)));
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let base = planned(EVERYTHING).config;
    let again = plan(&base, &valid(EVERYTHING)).unwrap();
    assert!(again.changes.is_empty());
    assert_eq!(again.config.revision(), base.revision());
    assert!(again.objects.iter().all(|object| object.action == PlannedAction::Unchanged));
}

#[test]
fn two_tcp_services_on_one_port_are_accepted_with_a_warning() {
    let service = |name, protocol| {
        format!(
            "{{kind: Service, name: {name}, spec: {{ports: [{{port: 5432, protocol: {protocol}}}]}}}}\n---\n"
        )
    };
    let plan = planned(&[service("a", "tcp"), service("b", "tls"), service("c", "http")].concat());
    let names: Vec<_> =
        plan.warnings.iter().map(|warning| warning.name.as_deref().unwrap()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_gateway_route_whose_host_no_listener_takes_is_accepted_with_a_warning() {
    let text = |host| {
        format!(
            "{{kind: Gateway, name: g, spec: {{listeners: [{{name: a, port: 1, protocol: http, hostname: '*.example.com'}}]}}}}\n---\n{{kind: Service, name: s, spec: {{ports: [{{port: 1, protocol: http}}]}}}}\n---\n{{kind: Route, name: r, spec: {{gateway: g, hosts: ['{host}'], rules: [{{backendRefs: [{{name: s}}]}}]}}}}"
        )
    };
    assert_eq!(planned(&text("shop.example.com")).warnings, []);
    assert_eq!(planned(&text("*")).warnings, []);
    assert_eq!(planned(&text("example.com")).warnings.len(), 1);
    assert_eq!(planned(&text("shop.example.org")).warnings.len(), 1);
}

#[test]
fn a_routes_retries_take_from_the_service_what_they_do_not_say() {
    let config = planned(EVERYTHING).config;
    let service = config.service("api").unwrap().retry.clone().unwrap();
    let route = config.routes().next().unwrap().rules[0].retry.clone().unwrap();
    let retry = route.over(Some(&service));
    assert_eq!(retry.attempts(), 1);
    assert_eq!(retry.on(), service.on());
    assert_eq!(duration::format(retry.backoff.unwrap()), "25ms");
}

/// Pieces of valid and nearly valid documents.
fn pieces() -> impl Strategy<Value = String> {
    let words: Vec<String> = EVERYTHING
        .split_inclusive([' ', '\n', ',', ':', '[', '{', '}', ']'])
        .map(str::to_owned)
        .collect();
    proptest::collection::vec(proptest::sample::select(words), 0..80)
        .prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = documents(&text);
    }

    #[test]
    fn no_shuffle_of_words_makes_the_reader_or_the_plan_panic(text in pieces()) {
        let (documents, _) = documents(&text);
        let _ = plan(&Config::default(), &documents);
    }

    #[test]
    fn a_mutated_document_is_read_or_its_problems_have_places(
        at in 0..EVERYTHING.len(), cut in 0usize..12, insert in "[\\PC\n]{0,4}",
    ) {
        let mut text = EVERYTHING.as_bytes().to_vec();
        let end = (at + cut).min(text.len());
        text.splice(at..end, insert.bytes());
        let text = String::from_utf8_lossy(&text).into_owned();
        let (documents, problems) = documents(&text);
        for problem in &problems {
            prop_assert!(problem.line.is_some() && problem.column.is_some(), "{problem:?}");
        }
        match plan(&Config::default(), &documents) {
            Ok(plan) => {
                for (object, _) in plan.config.objects() {
                    let printed = serde_json::to_string(&object).unwrap();
                    let (read, problems) = super::documents(&printed);
                    prop_assert_eq!(&problems, &[], "{}", printed);
                    prop_assert_eq!(&read[0].content, &Content::Object(object));
                }
            }
            Err(problems) => prop_assert!(!problems.is_empty()),
        }
    }
}
