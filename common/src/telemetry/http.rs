//! The pages of the HTTP port: `/livez`, `/readyz`, `/metrics`, `/status` and a page at `/`.
//!
//! `/livez` and `/readyz` are answered by the thread that reads the request. The others query the roles, which may wait
//! for a lock: they are rendered on other threads, two at a time, for a bounded time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::Semaphore;

use super::{Health, Status};
use crate::printable::{Printable, json_text};

/// Pages that are rendered at once.
const RENDERED_AT_ONCE: usize = 2;
/// The time-out of a page, including its wait for a free thread.
const RENDER_TIME: Duration = Duration::from_secs(3);

const TEXT: &str = "text/plain; charset=utf-8";

/// The pages that are served. Clones share them.
#[derive(Clone)]
pub struct Pages {
    health: Health,
    registry: Registry,
    status: Status,
    turns: Arc<Semaphore>,
    pub(super) render_time: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Page {
    Home,
    Status,
    Livez,
    Readyz,
    Metrics,
}

impl Pages {
    pub fn new(health: Health, registry: Registry, status: Status) -> Self {
        Self { health, registry, status, turns: Arc::new(Semaphore::new(RENDERED_AT_ONCE)), render_time: RENDER_TIME }
    }

    /// Never reads the body of the request.
    pub(super) async fn answer<B>(self, request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
        Ok(match page(request.method(), request.uri().path()) {
            Ok(page @ (Page::Livez | Page::Readyz)) => self.render(page),
            Ok(page) => self.rendered(page).await,
            Err(StatusCode::METHOD_NOT_ALLOWED) => method_not_allowed(),
            Err(status) => text(status, "there are /, /status, /livez, /readyz and /metrics\n"),
        })
    }

    async fn rendered(self, page: Page) -> Response<Full<Bytes>> {
        let (turns, render_time) = (self.turns.clone(), self.render_time);
        let rendering = async move {
            // Fails only if the semaphore is closed, which never happens.
            let turn = turns.acquire_owned().await.ok()?;
            let rendering = tokio::task::spawn_blocking(move || {
                // Held until the end, also if the client no longer waits for the page.
                let _turn = turn;
                self.render(page)
            });
            rendering.await.ok()
        };
        match tokio::time::timeout(render_time, rendering).await {
            Ok(Some(response)) => response,
            Ok(None) => text(StatusCode::INTERNAL_SERVER_ERROR, "this page cannot be made; the log says why\n"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "busy: this page took too long; try again\n"),
        }
    }

    fn render(&self, page: Page) -> Response<Full<Bytes>> {
        match page {
            Page::Home => home(&self.status),
            Page::Status => status(&self.status),
            Page::Metrics => metrics(&self.registry),
            Page::Readyz => readiness(&self.health),
            Page::Livez => text(StatusCode::OK, "ok\n"),
        }
    }
}

fn page(method: &Method, path: &str) -> Result<Page, StatusCode> {
    let page = match path {
        "/" => Page::Home,
        "/status" => Page::Status,
        "/livez" => Page::Livez,
        "/readyz" => Page::Readyz,
        "/metrics" => Page::Metrics,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    // The server omits the body of an answer to HEAD.
    if method == Method::GET || method == Method::HEAD { Ok(page) } else { Err(StatusCode::METHOD_NOT_ALLOWED) }
}

fn respond(
    status: StatusCode,
    headers: &[(HeaderName, &'static str)],
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, &[(header::CONTENT_TYPE, TEXT)], body)
}

fn method_not_allowed() -> Response<Full<Bytes>> {
    let headers = [(header::CONTENT_TYPE, TEXT), (header::ALLOW, "GET, HEAD")];
    respond(StatusCode::METHOD_NOT_ALLOWED, &headers, "only GET and HEAD are answered\n")
}

fn readiness(health: &Health) -> Response<Full<Bytes>> {
    let problems = health.problems();
    if problems.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    let line = |(component, reason)| format!("{}: {}\n", Printable(component), Printable(reason));
    text(StatusCode::SERVICE_UNAVAILABLE, problems.iter().map(line).collect::<String>())
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = Vec::new();
    match TextEncoder::new().encode(&registry.gather(), &mut body) {
        Ok(()) => respond(StatusCode::OK, &[(header::CONTENT_TYPE, "text/plain; version=0.0.4")], body),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn home(status: &Status) -> Response<Full<Bytes>> {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // If foreign text were ever not escaped, it could still load and run nothing.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    respond(StatusCode::OK, &headers, status.page())
}

fn status(status: &Status) -> Response<Full<Bytes>> {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    respond(StatusCode::OK, &headers, format!("{}\n", json_text(&status.json().to_string())))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn pages() -> Pages {
        let health = Health::default();
        Pages::new(health.clone(), Registry::new(), Status::new("1.2.3", health))
    }

    async fn ask(pages: &Pages, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = pages.clone().answer(request).await.unwrap();
        let (head, body) = response.into_parts();
        (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn five_paths_are_answered_and_nothing_else() {
        let pages = pages();
        for path in ["/", "/status", "/livez", "/readyz", "/metrics", "/readyz?verbose=1"] {
            assert_eq!(ask(&pages, "GET", path).await.0, StatusCode::OK, "{path}");
            assert_eq!(ask(&pages, "HEAD", path).await.0, StatusCode::OK, "{path}");
            assert_eq!(ask(&pages, "POST", path).await.0, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        }
        for path in ["/livez/", "/nothing", "//", "/..%2fetc"] {
            assert_eq!(ask(&pages, "GET", path).await.0, StatusCode::NOT_FOUND, "{path}");
        }
    }

    #[tokio::test]
    async fn readiness_names_each_problem_on_a_line_of_its_own_whatever_it_holds() {
        let pages = pages();
        pages.health.not_ready("ingestor", "cannot list 'x\u{1b}[2J\nstore: fine'");
        pages.health.not_ready("store", "down");
        let (status, body) = ask(&pages, "GET", "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, "ingestor: cannot list 'x\\u{1b}[2J\\u{a}store: fine'\nstore: down\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_does_not_answer_holds_up_its_page_for_a_bounded_time_and_no_probe() {
        let pages = pages();
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        pages.status.register("stuck", move || {
            let _ = held.lock().unwrap().recv();
            super::super::status::Section::new()
        });
        let asked = ["/", "/status", "/"].map(|path| {
            let pages = pages.clone();
            tokio::spawn(async move { ask(&pages, "GET", path).await.0 })
        });
        // A thread that blocks stops the paused clock, so time is advanced explicitly.
        tokio::task::yield_now().await;
        assert_eq!(ask(&pages, "GET", "/livez").await.0, StatusCode::OK);
        assert_eq!(ask(&pages, "GET", "/readyz").await.0, StatusCode::OK);
        tokio::time::advance(RENDER_TIME).await;
        for page in asked {
            assert_eq!(page.await.unwrap(), StatusCode::SERVICE_UNAVAILABLE);
        }
        drop(release);
    }
}
