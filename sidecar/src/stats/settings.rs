//! What the operator wants of statistics: which there are, tags of his own, bounds of buckets.

use regex::Regex;

use super::histogram::BUCKETS;

/// Whether a statistic of this full name is meant.
pub(crate) type Names = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// What the operator wants.
pub(crate) struct Settings {
    /// Which statistics are printed; `None`: all.
    pub(crate) keeps: Option<Names>,
    /// Whether Prometheus gets Envoy's own tags. Without them their values stay in the names.
    pub(crate) default_tags: bool,
    /// Tags beside those.
    pub(crate) tags: Vec<(String, Tag)>,
    /// Bounds of the buckets of some histograms.
    pub(crate) buckets: Vec<(Names, Box<[f64]>)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keeps: None, default_tags: true, tags: Vec::new(), buckets: Vec::new() }
    }
}

/// Where the value of a tag comes from.
pub(crate) enum Tag {
    /// The same for all statistics.
    Fixed(String),
    /// From the name: the first group is taken out of it, and the second, or else the first, is the value.
    Regex(Regex),
}

impl Settings {
    /// Whether a statistic of this full name is printed.
    pub(super) fn keeps(&self, name: &str) -> bool {
        self.keeps.as_ref().is_none_or(|keeps| keeps(name))
    }

    /// Bounds of the buckets of a histogram.
    pub(super) fn bounds(&self, name: &str) -> &[f64] {
        let own = self.buckets.iter().find(|(names, _)| names(name));
        own.map_or(&BUCKETS, |(_, bounds)| bounds)
    }

    /// The tags of the statistic `full`, and what is left of its `stem` in Prometheus.
    pub(super) fn tags(&self, full: &str, stem: &str) -> (Vec<(String, String)>, String) {
        let mut stem = stem.to_owned();
        let mut tags = Vec::new();
        for (name, tag) in &self.tags {
            match tag {
                Tag::Fixed(value) => tags.push((name.clone(), value.clone())),
                Tag::Regex(regex) => {
                    let Some(groups) = regex.captures(full) else { continue };
                    let Some(removed) = groups.get(1) else { continue };
                    let value = groups.get(2).unwrap_or(removed).as_str();
                    tags.push((name.clone(), value.to_owned()));
                    stem = stem.replacen(removed.as_str(), "", 1);
                }
            }
        }
        (tags, stem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_taken_out_of_the_name() {
        let tag = |regex: &str| Tag::Regex(Regex::new(regex).unwrap());
        let settings = Settings {
            tags: vec![
                ("fixed".to_owned(), Tag::Fixed("x".to_owned())),
                ("version".to_owned(), tag(r"^cluster\.a\.(ssl\.versions\.(.+))$")),
                ("other".to_owned(), tag("^nothing(.)")),
            ],
            ..Settings::default()
        };
        let (tags, stem) = settings.tags("cluster.a.ssl.versions.1", "b.ssl.versions.1");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(tags, [pair("fixed", "x"), pair("version", "1")]);
        assert_eq!(stem, "b.");
    }
}
