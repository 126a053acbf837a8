//! Paths by template, and what they are rewritten to.

use outrigger_integration::differential::{Case, Group, UpstreamKind};

use crate::parts::{bootstrap, cluster, http_listener, routes};

/// Templates, what they are rewritten to, and a path that starts each.
const TEMPLATES: &[(&str, &str)] = &[
    ("/one/{id}", "/1/{id}"),
    ("/two/{a}/{b}", "/{b}/x-{a}"),
    ("/star/*/end", ""),
    ("/rest/**", ""),
    ("/suffix/**.mpd", ""),
    ("/part/*.m4s", ""),
    ("/deep/{rest=**}", "/d/{rest}"),
    ("/inner/{path=v1/*}/tail", "/i/{path}"),
    ("/literal.a", "/l"),
];

pub(crate) fn group() -> Group {
    let mut text = String::new();
    for (template, rewrite) in TEMPLATES {
        let policy = if rewrite.is_empty() {
            String::new()
        } else {
            format!(
                ", path_rewrite_policy: {{name: envoy.path.rewrite.uri_template.uri_template_rewriter, typed_config: {{'@type': type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig, path_template_rewrite: '{rewrite}'}}}}"
            )
        };
        text.push_str(&format!(
            "- match: {{path_match_policy: {{name: envoy.path.match.uri_template.uri_template_matcher, typed_config: {{'@type': type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig, path_template: '{template}'}}}}}}\n  route: {{cluster: a{policy}}}\n"
        ));
    }
    Group {
        name: "templates",
        bootstrap: bootstrap(
            &[http_listener("LISTEN", &routes(&text))],
            &[cluster("a", &["a"], "")],
        ),
        upstreams: vec![("a", UpstreamKind::Plain)],
        unsupported: None,
        cases: cases(),
    }
}

fn cases() -> Vec<Case> {
    let paths = |name: &'static str, paths: &[(&str, &'static str)]| {
        paths.iter().fold(Case::new(name), |case, (path, expected)| case.get(path, expected))
    };
    vec![
        paths(
            "a_variable_is_one_segment",
            &[
                ("/one/7", "200 a"),
                ("/one/7?q=/x", "200 a"),
                ("/one/", "404 -"),
                ("/one/7/8", "404 -"),
                ("/one", "404 -"),
            ],
        ),
        paths(
            "variables_may_change_places",
            &[("/two/x/y", "200 a"), ("/two/x%20/y~z?a=b", "200 a"), ("/two/x", "404 -")],
        ),
        paths(
            "a_star_is_one_segment",
            &[("/star/x/end", "200 a"), ("/star/x/y/end", "404 -"), ("/star//end", "404 -")],
        ),
        paths(
            "two_stars_are_all_that_follows",
            &[("/rest/", "200 a"), ("/rest/a/b/c", "200 a"), ("/rest", "404 -")],
        ),
        paths(
            "a_literal_may_end_the_path",
            &[
                ("/suffix/a/b.mpd", "200 a"),
                ("/suffix/a/b.mp4", "404 -"),
                ("/part/1.m4s", "200 a"),
                ("/part/a/1.m4s", "404 -"),
            ],
        ),
        paths(
            "a_variable_may_be_all_that_follows",
            &[("/deep/a/b?c", "200 a"), ("/deep/", "200 a")],
        ),
        paths(
            "a_variable_may_have_a_pattern",
            &[("/inner/v1/x/tail", "200 a"), ("/inner/v2/x/tail", "404 -")],
        ),
        paths(
            "a_literal_is_no_pattern",
            &[("/literal.a", "200 a"), ("/literalxa", "404 -"), ("/LITERAL.a", "404 -")],
        ),
        paths(
            "characters_of_a_segment",
            &[
                ("/one/a.b-c_d~e!$&'()+,;:@=%41", "200 a"),
                ("/one/a*b", "200 a"),
                ("/one/a%7Bb", "200 a"),
            ],
        ),
    ]
}
