//! Which of several compressors a client gets, by its `accept-encoding`.

/// A compressor that may take the response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offer {
    pub(super) encoding: &'static str,
    /// Of several that the client likes equally, this one.
    pub(super) first: bool,
}

/// What was chosen, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Choice {
    /// The encoding that the client asked for.
    Encoding(&'static str),
    /// The first that there is: the client takes any.
    Wildcard(&'static str),
    /// The client prefers the body as it is.
    Identity,
    /// Nothing that there is here.
    NotValid,
}

impl Choice {
    /// The encoding of the response.
    pub(super) fn encoding(self) -> Option<&'static str> {
        match self {
            Self::Encoding(encoding) | Self::Wildcard(encoding) => Some(encoding),
            Self::Identity | Self::NotValid => None,
        }
    }
}

/// Chooses as Envoy does: the highest weight wins, then the first that the client names, unless a later one is to be
/// chosen first.
pub(super) fn choose(accept: &str, offers: &[Offer]) -> Choice {
    let mut allowed: Vec<Offer> = Vec::new();
    for offer in offers {
        // Of several with one encoding the first counts.
        if allowed.iter().all(|other| other.encoding != offer.encoding) {
            allowed.push(*offer);
        }
    }
    let mut asked = Vec::new();
    for token in accept.split(',').filter(|token| !token.is_empty()) {
        let (name, parameters) = token.split_once(';').unwrap_or((token, ""));
        let (name, mut weight) = (name.trim(), 1.0_f32);
        if let Some((key, value)) = parameters.split_once('=')
            && key.trim().eq_ignore_ascii_case("q")
        {
            let Ok(number) = value.trim().parse() else { continue };
            weight = number;
        }
        asked.push((name, weight));
        if weight == 0.0 {
            allowed.retain(|offer| offer.encoding != name);
        }
    }
    if asked.is_empty() || allowed.is_empty() {
        return Choice::NotValid;
    }
    let offer = |name: &str| allowed.iter().find(|offer| offer.encoding == name);
    let mut best = ("identity", 0.0);
    for (name, weight) in asked {
        let known = offer(name);
        if known.is_none() && name != "identity" && name != "*" {
            continue;
        }
        let first = known.is_some_and(|offer| offer.first);
        if weight > best.1 || (weight == best.1 && first) {
            best = (name, weight);
        }
    }
    match best {
        (_, 0.0) => Choice::NotValid,
        ("identity", _) => Choice::Identity,
        ("*", _) => allowed.first().map_or(Choice::NotValid, |it| Choice::Wildcard(it.encoding)),
        (name, _) => offer(name).map_or(Choice::NotValid, |it| Choice::Encoding(it.encoding)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(encoding: &'static str) -> Offer {
        Offer { encoding, first: false }
    }

    #[test]
    fn the_weight_decides_then_the_place() {
        let all = [offer("gzip"), offer("br")];
        for (accept, expected) in [
            ("gzip", Choice::Encoding("gzip")),
            ("gzip, br", Choice::Encoding("gzip")),
            ("br, gzip", Choice::Encoding("br")),
            ("gzip;q=0.5, br", Choice::Encoding("br")),
            ("gzip ; q=0.5 , br;Q=0.25", Choice::Encoding("gzip")),
            ("*", Choice::Wildcard("gzip")),
            ("gzip;q=0, *", Choice::Wildcard("br")),
            ("gzip;q=0, br;q=0, *", Choice::NotValid),
            ("identity", Choice::Identity),
            ("identity, gzip;q=0.5", Choice::Identity),
            ("identity;q=0.5, gzip", Choice::Encoding("gzip")),
            ("deflate", Choice::NotValid),
            ("*;q=0", Choice::NotValid),
            ("gzip;q=x", Choice::NotValid),
            ("gzip;level=1", Choice::Encoding("gzip")),
            ("", Choice::NotValid),
        ] {
            assert_eq!(choose(accept, &all), expected, "{accept}");
        }
    }

    #[test]
    fn one_that_is_to_be_chosen_first_wins_where_weights_are_equal() {
        let all = [offer("gzip"), Offer { encoding: "br", first: true }];
        assert_eq!(choose("gzip, br", &all), Choice::Encoding("br"));
        assert_eq!(choose("gzip, br;q=0.9", &all), Choice::Encoding("gzip"));
    }

    #[test]
    fn nothing_is_chosen_where_nothing_is_offered() {
        assert_eq!(choose("gzip", &[]), Choice::NotValid);
    }
}
