//! Templates of paths, `envoy.path.match.uri_template` and `envoy.path.rewrite.uri_template`.
//!
//! `*` is one segment, `**` is all that follows and may only stand last, `{name}` and `{name=pattern}` are variables. Behind
//! the last of these the path may have to end in a literal: `/**.mpd`.

use outrigger_proto::any;
use outrigger_proto::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use outrigger_proto::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use regex::bytes::Regex;

use crate::config::Problems;
use crate::config::uri_template::{RewritePart, UriTemplate, UriTemplateRewrite};

use super::common::{typed_config, unknown_type, unpack};

/// Most variables of a template.
const MAX_VARIABLES: usize = 5;
/// Longest name of a variable.
const MAX_NAME: usize = 16;
/// What a segment consists of: RFC 3986, section 3.3.
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()*+,;:@=]";

/// `path_match_policy`
pub(super) fn matcher(problems: &mut Problems, proto: TypedExtensionConfig) -> Option<UriTemplate> {
    let config = typed_config(problems, proto)?;
    problems.field("typed_config", |problems| {
        if !any::holds::<UriTemplateMatchConfig>(&config) {
            unknown_type(problems, &config, &["UriTemplateMatchConfig"]);
            return None;
        }
        let UriTemplateMatchConfig { path_template } = unpack(problems, &config)?;
        let parsed = Template::parse(&path_template).and_then(|template| template.compile());
        parsed.map_err(|reason| problems.reject_field("path_template", reason)).ok()
    })
}

/// `path_rewrite_policy`
pub(super) fn rewrite(
    problems: &mut Problems,
    proto: TypedExtensionConfig,
) -> Option<UriTemplateRewrite> {
    let config = typed_config(problems, proto)?;
    problems.field("typed_config", |problems| {
        if !any::holds::<UriTemplateRewriteConfig>(&config) {
            unknown_type(problems, &config, &["UriTemplateRewriteConfig"]);
            return None;
        }
        let UriTemplateRewriteConfig { path_template_rewrite } = unpack(problems, &config)?;
        let parsed = rewrite_parts(&path_template_rewrite);
        parsed.map_err(|reason| problems.reject_field("path_template_rewrite", reason)).ok()
    })
}

/// Whether every variable of the rewrite is one of the template.
pub(super) fn fits(rewrite: &UriTemplateRewrite, template: &UriTemplate) -> Result<(), String> {
    let names: Vec<&str> = template.0.capture_names().flatten().collect();
    for part in &rewrite.0 {
        if let RewritePart::Variable(name) = part
            && !names.contains(&&**name)
        {
            return Err(format!("the template that matches has no variable {name:?}"));
        }
    }
    Ok(())
}

/// A regex that is being put together from a template.
#[derive(Default)]
struct Template {
    regex: String,
    names: Vec<String>,
    /// A `**` was seen: nothing but a literal may follow.
    ends: bool,
}

impl Template {
    fn parse(text: &str) -> Result<Self, String> {
        let mut template = Self::default();
        let mut rest = text;
        if !rest.starts_with('/') {
            return Err(format!("{text:?} does not begin with '/'"));
        }
        while let Some(behind) = rest.strip_prefix('/') {
            template.regex.push('/');
            rest = template.segment(behind)?;
        }
        // What is left ends the path.
        if rest.contains('/') || !is_literal(rest) {
            return Err(format!("{rest:?} is no literal, and nothing else may end a path"));
        }
        template.literal(rest);
        Ok(template)
    }

    /// Takes one segment and gives back what is behind it.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        if let Some(behind) = text.strip_prefix('{') {
            let (variable, behind) =
                behind.split_once('}').ok_or_else(|| format!("{{{behind} is not closed"))?;
            self.variable(variable)?;
            return Ok(behind);
        }
        if text.starts_with('*') {
            return self.operator(text);
        }
        let end = text.find('/').unwrap_or(text.len());
        let (literal, behind) = text.split_at(end);
        if literal.is_empty() && !behind.is_empty() || !is_literal(literal) {
            return Err(format!("{literal:?} is no segment of a path"));
        }
        self.literal(literal);
        Ok(behind)
    }

    fn operator<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        if self.ends {
            return Err("nothing but a literal may follow **".to_owned());
        }
        match text.strip_prefix("**") {
            Some(behind) => {
                self.regex.push_str(&SEGMENT.replace(']', "/]*"));
                self.ends = true;
                Ok(behind)
            }
            None => {
                self.regex.push_str(SEGMENT);
                self.regex.push('+');
                Ok(text.get(1..).unwrap_or_default())
            }
        }
    }

    fn variable(&mut self, text: &str) -> Result<(), String> {
        let (name, pattern) = text.split_once('=').unwrap_or((text, "*"));
        check_name(name)?;
        if self.names.iter().any(|known| known == name) {
            return Err(format!("the variable {name:?} stands there twice"));
        }
        if self.names.len() == MAX_VARIABLES {
            return Err(format!("more than {MAX_VARIABLES} variables"));
        }
        self.names.push(name.to_owned());
        if self.ends {
            return Err("nothing but a literal may follow **".to_owned());
        }
        self.regex.push_str(&format!("(?P<{name}>"));
        let mut rest = pattern;
        if let Some(behind) = rest.strip_prefix('/') {
            self.regex.push('/');
            rest = behind;
        }
        loop {
            if rest.is_empty() || rest.starts_with('{') {
                return Err(format!("{pattern:?} is no pattern of a variable"));
            }
            rest = self.segment(rest)?;
            match rest.strip_prefix('/') {
                Some(behind) => {
                    self.regex.push('/');
                    rest = behind;
                }
                None if rest.is_empty() => break,
                None => return Err(format!("{pattern:?} is no pattern of a variable")),
            }
        }
        self.regex.push(')');
        Ok(())
    }

    fn literal(&mut self, text: &str) {
        self.regex.push_str(&regex::escape(text));
    }

    fn compile(self) -> Result<UriTemplate, String> {
        let regex = Regex::new(&format!("^{}$", self.regex));
        regex.map(UriTemplate).map_err(|error| error.to_string())
    }
}

fn is_literal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte))
}

fn check_name(name: &str) -> Result<(), String> {
    let valid = name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if valid {
        return Ok(());
    }
    Err(format!("{name:?} is no name of a variable: up to {MAX_NAME} letters, digits and '_'"))
}

fn rewrite_parts(text: &str) -> Result<UriTemplateRewrite, String> {
    if !text.starts_with('/') {
        return Err(format!("{text:?} does not begin with '/'"));
    }
    if text.contains("//") {
        return Err(format!("{text:?} has two slashes in a row"));
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find('{').unwrap_or(rest.len());
        let (literal, behind) = rest.split_at(end);
        if !literal.split('/').all(is_literal) {
            return Err(format!("{literal:?} is no part of a path"));
        }
        if !literal.is_empty() {
            parts.push(RewritePart::Literal(literal.into()));
        }
        rest = behind;
        if let Some(behind) = rest.strip_prefix('{') {
            let (name, behind) =
                behind.split_once('}').ok_or_else(|| format!("{{{behind} is not closed"))?;
            check_name(name)?;
            parts.push(RewritePart::Variable(name.into()));
            rest = behind;
        }
    }
    Ok(UriTemplateRewrite(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        let template = Template::parse(template).and_then(Template::compile);
        template.unwrap_or_else(|error| panic!("{error}")).0.is_match(path.as_bytes())
    }

    #[test]
    fn a_template_matches_the_whole_path() {
        for (template, path, expected) in [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/*", "/a/", false),
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/**.mpd", "/a/b.mpd", true),
            ("/**.mpd", "/a/b.mp4", false),
            ("/v/*/*.m4s", "/v/1/2.m4s", true),
            ("/v/{file}", "/v/x", true),
            ("/v/{file=a/*}/end", "/v/a/x/end", true),
            ("/v/{file=a/*}/end", "/v/b/x/end", false),
            ("/v/{rest=**}", "/v/b/x/end", true),
            ("/a.b", "/axb", false),
            ("/", "/", true),
        ] {
            assert_eq!(matches(template, path), expected, "{template} {path}");
        }
    }

    #[test]
    fn a_template_that_is_none_says_why() {
        for (template, why) in [
            ("a", "does not begin with '/'"),
            ("/**/*", "nothing but a literal may follow **"),
            ("/**/{a}", "nothing but a literal may follow **"),
            ("/{a", "is not closed"),
            ("/{1a}", "no name of a variable"),
            ("/{a}/{a}", "twice"),
            ("/{a}/{b}/{c}/{d}/{e}/{f}", "more than 5"),
            ("/{a=}", "no pattern of a variable"),
            ("//a", "no segment"),
            ("/a b", "no segment"),
            ("/*a*", "no literal"),
        ] {
            let error = Template::parse(template).err().unwrap_or_default();
            assert!(error.contains(why), "{template}: {error:?}");
        }
    }

    #[test]
    fn a_rewrite_knows_the_variables_of_its_template() {
        let template = Template::parse("/{a}/{b=**}").and_then(Template::compile).unwrap();
        let rewrite = rewrite_parts("/x/{b}-{a}").unwrap();
        assert_eq!(
            rewrite.0,
            [
                RewritePart::Literal("/x/".into()),
                RewritePart::Variable("b".into()),
                RewritePart::Literal("-".into()),
                RewritePart::Variable("a".into()),
            ]
        );
        assert!(fits(&rewrite, &template).is_ok());
        assert!(fits(&rewrite_parts("/{c}").unwrap(), &template).is_err());
        for wrong in ["a", "//a", "/{a", "/*", "/{a=b}"] {
            assert!(rewrite_parts(wrong).is_err(), "{wrong}");
        }
    }
}
