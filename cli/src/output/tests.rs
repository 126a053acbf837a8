use super::time::short_duration;
use super::*;

#[test]
fn a_table_keeps_within_eighty_columns_and_loses_nothing() {
    let mut table = Table::new(&["NODE", "STATE", "REASON"]);
    let reason = "clusters/api: lb_policy: ".to_owned() + &"why ".repeat(40);
    table.row([Cell::from("web-1"), Cell::state("REJECTED"), Cell::from(reason.clone())]);
    let text = table.render(false, false);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(text.matches("why").count(), 40);
    assert!(table.render(true, false).lines().any(|line| line.contains(reason.trim())));
}

#[test]
fn colours_are_printed_only_when_asked_for() {
    let mut table = Table::new(&["STATE"]);
    table.row([Cell::state("ok")]);
    assert!(table.render(false, true).contains('\u{1b}'));
    assert!(!table.render(false, false).contains('\u{1b}'));
}

#[test]
fn an_empty_cell_shows_a_dash() {
    let mut table = Table::new(&["A", "B"]);
    table.row([Cell::from(""), Cell::from("x")]);
    assert_eq!(table.render(false, false), "A  B\n-  x\n");
}

#[test]
fn durations_have_at_most_two_units() {
    for (seconds, text) in [
        (-1.0, "0.0s"),
        (0.34, "0.3s"),
        (12.9, "12s"),
        (252.0, "4m12s"),
        (7200.0, "2h"),
        (90_000.0, "1d1h"),
    ] {
        assert_eq!(short_duration(seconds), text);
    }
    assert_eq!(age("yesterday"), "");
}

#[test]
fn json_and_yaml_hold_the_same_value() {
    let value = serde_json::json!({"items": [{"name": "api", "on": true, "n": 1}]});
    let args = |output| OutputArgs { output, no_color: true };
    let human = || Ok("table".to_owned());
    let json = args(Format::Json).render(&value, human).unwrap();
    let yaml = args(Format::Yaml).render(&value, human).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), value);
    assert_eq!(args(Format::Table).render(&value, human).unwrap(), "table");
}
