//! The live view on a terminal.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Sparkline, Table};
use ratatui::{DefaultTerminal, Frame};
use tokio::time::Instant;

use super::{INTERVAL, Moment};
use crate::client::Endpoint;
use crate::demo::guide::guide;
use crate::demo::interrupted;
use crate::demo::mesh::Mesh;
use crate::demo::resources::api_route;
use crate::exit::Failure;
use crate::load::Load;

/// Moments whose figures are drawn as curves.
const HISTORY: usize = 120;
/// How often keys are looked for.
const KEYS: Duration = Duration::from_millis(50);

/// Whether there is a terminal to draw on.
pub(super) fn possible() -> bool {
    std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
}

/// What is wrong on purpose right now.
#[derive(Debug, Default)]
struct Mischief {
    slow: bool,
    failing: bool,
    crashed: bool,
    canary_half: bool,
    /// What the last key did, or why it could not.
    said: String,
}

struct View {
    guide: String,
    moment: Option<Moment>,
    requests: VecDeque<u64>,
    latency: VecDeque<u64>,
    mischief: Mischief,
}

/// Draws until `q` or ^C.
pub(super) async fn show(mesh: &mut Mesh, load: &Load) -> Result<(), Failure> {
    let mut view = View {
        guide: guide(mesh),
        moment: None,
        requests: VecDeque::new(),
        latency: VecDeque::new(),
        mischief: Mischief::default(),
    };
    let mut terminal = ratatui::try_init()?;
    let outcome = tokio::select! {
        outcome = draw_until_quit(&mut terminal, &mut view, mesh, load) => outcome,
        signal = interrupted() => Ok(signal?),
    };
    ratatui::try_restore()?;
    outcome
}

async fn draw_until_quit(
    terminal: &mut DefaultTerminal,
    view: &mut View,
    mesh: &mut Mesh,
    load: &Load,
) -> Result<(), Failure> {
    let mut before = load.snapshot();
    let mut since = Instant::now();
    loop {
        terminal.draw(|frame| draw(frame, view))?;
        let next = since + INTERVAL;
        while Instant::now() < next {
            tokio::time::sleep(KEYS).await;
            if event::poll(Duration::ZERO)?
                && let Event::Key(key) = event::read()?
            {
                let interrupt =
                    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(());
                }
                if let KeyCode::Char(key) = key.code {
                    view.mischief.press(key, mesh).await;
                    terminal.draw(|frame| draw(frame, view))?;
                }
            }
        }
        let now = load.snapshot();
        let moment = Moment::of(mesh, now.since(&before), since.elapsed().as_secs_f64()).await;
        (before, since) = (now, Instant::now());
        push(&mut view.requests, moment.requests_per_second() as u64);
        push(&mut view.latency, (moment.recent.percentile_ms(99.0) * 10.0) as u64);
        view.moment = Some(moment);
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    history.push_back(value);
    if history.len() > HISTORY {
        history.pop_front();
    }
}

impl Mischief {
    /// What the keys do. A failure is told on the screen and ends nothing.
    async fn press(&mut self, key: char, mesh: &mut Mesh) {
        let outcome = match key {
            '1' => self.toggle_slow(mesh).await,
            '2' => self.toggle_failing(mesh).await,
            '3' => self.toggle_crash(mesh).await,
            '4' => self.toggle_canary(mesh).await,
            _ => return,
        };
        self.said = match outcome {
            Ok(said) => said.to_owned(),
            Err(error) => format!("that did not work: {error:#}"),
        };
    }

    async fn toggle_slow(&mut self, mesh: &Mesh) -> anyhow::Result<&'static str> {
        let (ms, said) = match self.slow {
            false => (200, "api-1 is 200 ms slower: least request sends it less"),
            true => (0, "api-1 is fast again"),
        };
        mesh.switch("api-1", &format!("/delay?ms={ms}")).await?;
        self.slow = !self.slow;
        Ok(said)
    }

    async fn toggle_failing(&mut self, mesh: &Mesh) -> anyhow::Result<&'static str> {
        let (rate, said) = match self.failing {
            false => (1, "api-2 answers 500: it is ejected after five in a row"),
            true => (0, "api-2 is well and returns after its ejection"),
        };
        mesh.switch("api-2", &format!("/fail?rate={rate}")).await?;
        self.failing = !self.failing;
        Ok(said)
    }

    async fn toggle_crash(&mut self, mesh: &mut Mesh) -> anyhow::Result<&'static str> {
        let said = if self.crashed {
            mesh.start_app("api-3")?;
            mesh.start_sidecar("api-3")?;
            "api-3 starts again"
        } else {
            mesh.crash("api-3").await?;
            "kill -9 of api-3 and its sidecar: requests under way go elsewhere"
        };
        self.crashed = !self.crashed;
        Ok(said)
    }

    async fn toggle_canary(&mut self, mesh: &Mesh) -> anyhow::Result<&'static str> {
        let (v2, said) = match self.canary_half {
            false => (50, "half of the requests go to v2"),
            true => (10, "one in ten requests goes to v2"),
        };
        mesh.apply_at_once(&[api_route(100 - v2, v2)]).await?;
        self.canary_half = !self.canary_half;
        Ok(said)
    }
}

fn draw(frame: &mut Frame<'_>, view: &View) {
    // On a small terminal the endpoints matter more than what could be tried.
    let guide_height = match u16::try_from(view.guide.lines().count()) {
        Ok(lines) if frame.area().height >= lines + 2 + 21 => lines + 2,
        _ => 0,
    };
    let [head, curves, endpoints, keys, guide] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(5),
        Constraint::Min(10),
        Constraint::Length(3),
        Constraint::Length(guide_height),
    ])
    .areas(frame.area());
    frame.render_widget(headline(view), head);
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(curves);
    frame.render_widget(curve("requests a second", &view.requests, left.width), left);
    frame.render_widget(curve("p99, in 0.1 ms", &view.latency, right.width), right);
    frame.render_widget(endpoint_table(view), endpoints);
    let said = match view.mischief.said.as_str() {
        "" => "1 slow api-1   2 fail api-2   3 crash api-3   4 canary   q quit",
        said => said,
    };
    frame.render_widget(
        Paragraph::new(said).block(Block::bordered().title(" keys 1 2 3 4, q ")),
        keys,
    );
    frame.render_widget(
        Paragraph::new(view.guide.as_str()).block(Block::bordered().title(" try ")),
        guide,
    );
}

fn headline(view: &View) -> Paragraph<'_> {
    let block = Block::bordered().title(" load -> gateway -> web -> api -> ledger ");
    let Some(moment) = &view.moment else {
        return Paragraph::new("measuring").block(block);
    };
    let good = |text: String, good: bool| {
        let color = if good { Color::Green } else { Color::Red };
        Span::styled(text, Style::new().fg(color).add_modifier(Modifier::BOLD))
    };
    let control_plane = match &moment.status {
        Ok(status) => {
            let in_sync = status.sidecars.iter().filter(|sidecar| sidecar.in_sync()).count();
            let all = status.sidecars.len();
            vec![
                Span::raw(format!("revision {}  ", status.revision)),
                good(format!("{in_sync}/{all} in sync"), in_sync == all),
            ]
        }
        Err(_) => vec![good("no control plane".to_owned(), false)],
    };
    let mut spans = control_plane;
    spans.push(Span::raw(format!("   {:.0} rps   ", moment.requests_per_second())));
    spans.push(good(format!("{:.1} % ok", moment.success()), moment.recent.failed == 0));
    spans.push(Span::raw(format!(
        "   p50 {:.1} ms   p99 {:.1} ms   ",
        moment.recent.percentile_ms(50.0),
        moment.recent.percentile_ms(99.0)
    )));
    spans.push(good(format!("{} ejected", moment.ejected()), moment.ejected() == 0));
    Paragraph::new(Line::from(spans)).block(block)
}

fn curve<'a>(title: &'a str, history: &'a VecDeque<u64>, width: u16) -> Sparkline<'a> {
    let fits = usize::from(width.saturating_sub(2));
    let skipped = history.len().saturating_sub(fits);
    let last = history.back().copied().unwrap_or(0);
    Sparkline::default()
        .block(Block::bordered().title(format!(" {title}: {last} ")))
        .style(Style::new().fg(Color::Cyan))
        .data(history.iter().skip(skipped).copied())
}

fn endpoint_table(view: &View) -> Table<'_> {
    let header = Row::new(["SERVICE", "INSTANCE", "VERSION", "ADDRESS", "HEALTH", "RPS", "WHY"])
        .style(Style::new().add_modifier(Modifier::BOLD));
    let rows = view
        .moment
        .iter()
        .flat_map(|moment| moment.endpoints.iter().map(|endpoint| endpoint_row(endpoint, moment)));
    let widths = [
        Constraint::Length(7),
        Constraint::Length(9),
        Constraint::Length(7),
        Constraint::Length(17),
        Constraint::Length(9),
        Constraint::Length(4),
        Constraint::Fill(1),
    ];
    Table::new(rows, widths).header(header).block(Block::bordered().title(" endpoints "))
}

fn endpoint_row<'a>(endpoint: &'a Endpoint, moment: &Moment) -> Row<'a> {
    let served = *moment.recent.by_instance.get(&endpoint.instance).unwrap_or(&0);
    let rps = served as f64 / moment.seconds.max(0.001);
    let color = match endpoint.health.as_str() {
        "healthy" => Color::Green,
        "draining" => Color::Yellow,
        _ => Color::Red,
    };
    Row::new([
        Cell::from(endpoint.service.as_str()),
        Cell::from(endpoint.instance.as_str()),
        Cell::from(endpoint.labels.get("version").map_or("", String::as_str)),
        Cell::from(format!("{}:{}", endpoint.address, endpoint.port)),
        Cell::from(endpoint.health.as_str()).style(Style::new().fg(color)),
        Cell::from(format!("{rps:.0}")),
        Cell::from(crate::commands::endpoints::why(endpoint)),
    ])
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    fn view() -> View {
        let status = json!({"revision": 7, "sidecars": [
            {"node": "api-1", "connected": true, "clusters": {"state": "ok"}},
            {"node": "api-2", "connected": false},
        ]});
        let endpoints = json!([
            {"service": "api", "instance": "api-1", "address": "127.10.0.31", "port": 15006, "health": "healthy",
             "labels": {"version": "v1"}},
            {"service": "api", "instance": "api-2", "address": "127.10.0.32", "port": 15006, "health": "ejected",
             "ejectedBecause": "consecutive_5xx", "labels": {"version": "v1"}},
        ]);
        let mut recent = crate::load::Stats::default();
        recent.failed_to_send("no response");
        for instance in ["api-1"].iter().cycle().take(120).chain(["api-3"].iter().cycle().take(79))
        {
            let latency = Duration::from_millis(3);
            recent.answered(
                http::StatusCode::OK,
                latency,
                Some("v1"),
                None,
                [instance].into_iter(),
            );
        }
        View {
            guide: "curl -i http://shop.localhost:8080/orders\n".repeat(8),
            moment: Some(Moment {
                status: Ok(serde_json::from_value(status).unwrap()),
                endpoints: serde_json::from_value(endpoints).unwrap(),
                recent,
                seconds: 1.0,
            }),
            requests: VecDeque::from([190, 200]),
            latency: VecDeque::from([20, 30]),
            mischief: Mischief::default(),
        }
    }

    fn drawn(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let view = view();
        terminal.draw(|frame| draw(frame, &view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_view_shows_what_is_going_on() {
        let text = drawn(100, 40);
        for shown in [
            "revision 7",
            "1/2 in sync",
            "200 rps",
            "99.5 % ok",
            "1 ejected",
            "consecutive_5xx",
            "120",
            "curl -i",
            "q quit",
        ] {
            assert!(text.contains(shown), "{shown} is not in\n{text}");
        }
    }

    #[test]
    fn a_small_terminal_shows_the_endpoints_and_leaves_the_guide_out() {
        let text = drawn(80, 24);
        assert!(text.contains("api-2") && text.contains("consecutive_5xx"), "{text}");
        assert!(!text.contains("curl"), "{text}");
    }
}
