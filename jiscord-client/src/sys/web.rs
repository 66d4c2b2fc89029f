//! The browser: its fetch, its WebSocket, its timers and its chance.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::future::{Either, select};
use gloo_timers::future::TimeoutFuture;
use http::StatusCode;
use js_sys::{JsString, Reflect, Uint8Array};
use secrecy::ExposeSecret;
use wasm_bindgen::{JsCast, JsValue, closure::Closure};
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, BinaryType, CloseEvent, MessageEvent, ReadableStreamDefaultReader, RequestCache, RequestCredentials,
    RequestInit, Response, WebSocket, Window,
};

use super::{Failure, Incoming, MAX_FRAME, Reply, Request};
use crate::error::{Error, Result, Source};

pub(crate) use web_time::Instant;

/// From so many unread bytes on a connection is given up: the browser goes on reading, whether we keep up or not.
const MAX_UNREAD: usize = 16 << 20;

/// Something to be done.
pub(crate) type Work<T> = Pin<Box<dyn Future<Output = T>>>;

/// Runs `work` beside the caller.
pub(crate) fn spawn(work: impl Future<Output = ()> + 'static) {
    wasm_bindgen_futures::spawn_local(work);
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // Browsers refuse only more than 65,536 bytes, and every place that has fetch has this.
    if let Err(error) = global().crypto().and_then(|crypto| crypto.get_random_values_with_u8_array(&mut bytes)) {
        tracing::error!(error = %text(&error), "no random numbers");
    }
    bytes
}

/// Waits.
pub(crate) async fn sleep(wait: Duration) {
    sleep_until(Instant::now() + wait).await;
}

/// Waits until then.
pub(crate) async fn sleep_until(then: Instant) {
    loop {
        let left = then.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        // Browsers count whole milliseconds in 31 bits, and more would be none.
        let ms = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as u32;
        TimeoutFuture::new(ms).await;
    }
}

/// It took too long.
#[derive(Debug)]
pub(crate) struct Elapsed;

/// Awaits `work`, but not for longer.
pub(crate) async fn timeout<T>(wait: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
    match select(pin!(work), pin!(sleep(wait))).await {
        Either::Left((done, _)) => Ok(done),
        Either::Right(_) => Err(Elapsed),
    }
}

/// An address. The browser understands it, so that no tables of the world's scripts have to be loaded with us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url(String);

impl Url {
    pub(crate) fn parse(address: &str) -> Result<Self, String> {
        web_sys::Url::new(address).map(|url| Self(url.href())).map_err(|_| "not an address".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn scheme(&self) -> &str {
        self.0.split_once(':').map_or("", |(scheme, _)| scheme)
    }

    pub(crate) fn username(&self) -> String {
        self.parts().map(|url| url.username()).unwrap_or_default()
    }

    pub(crate) fn password(&self) -> Option<String> {
        self.parts().map(|url| url.password()).filter(|password| !password.is_empty())
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.0.split_once('?').map(|(_, query)| query)
    }

    pub(crate) fn fragment(&self) -> Option<&str> {
        self.0.split_once('#').map(|(_, fragment)| fragment)
    }

    pub(crate) fn path(&self) -> String {
        self.parts().map(|url| url.pathname()).unwrap_or_default()
    }

    pub(crate) fn set_path(&mut self, path: &str) {
        if let Some(url) = self.parts() {
            url.set_pathname(path);
            self.0 = url.href();
        }
    }

    /// It was understood before, so that it is again.
    fn parts(&self) -> Option<web_sys::Url> {
        web_sys::Url::new(&self.0).ok()
    }
}

/// Adds to an address's query.
pub(crate) fn add_query(url: &mut Url, parameter: &str, value: &str) {
    if let Some(parts) = url.parts() {
        parts.search_params().append(parameter, value);
        url.0 = parts.href();
    }
}

/// The page, or the worker: what is used of it here is there in both.
fn global() -> Window {
    js_sys::global().unchecked_into()
}

fn text(value: &JsValue) -> String {
    match value.dyn_ref::<js_sys::Error>() {
        Some(error) => String::from(error.message()),
        None => value.as_string().unwrap_or_else(|| "unknown".to_owned()),
    }
}

fn source(value: JsValue) -> Source {
    text(&value).into()
}

/// Makes HTTP calls and opens WebSockets.
#[derive(Clone)]
pub(crate) struct Transport;

/// The headers of an answer.
pub(crate) struct Headers(web_sys::Headers);

impl Headers {
    /// A header's value, if it is there and may be seen.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.get(name).ok().flatten()
    }
}

/// Ends a call that nobody waits for any more.
struct Abort(AbortController);

impl Drop for Abort {
    fn drop(&mut self) {
        // After the end of the call it does nothing.
        self.0.abort();
    }
}

impl Transport {
    /// Never fails here.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self)
    }

    /// Makes a call. The browser adds its cookies where the server is the page's own.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let wait = request.timeout;
        let abort = AbortController::new().map(Abort).map_err(|error| Failure::NotSent(source(error)))?;
        let built = build(&request, &abort.0).map_err(|error| Failure::NotSent(source(error)))?;
        let call = async {
            let response =
                JsFuture::from(global().fetch_with_request(&built)).await.map_err(|error| Failure::Lost(source(error)))?;
            let response: Response = response.unchecked_into();
            let status = StatusCode::from_u16(response.status()).map_err(|error| Failure::Lost(error.into()))?;
            let headers = Headers(response.headers());
            Ok(Reply { status, headers, body: bytes(&response, request.max_body).await })
        };
        timeout(wait, call).await.unwrap_or_else(|_| Err(Failure::Lost("no answer in time".into())))
    }

    /// Opens a WebSocket.
    pub(crate) async fn connect(&self, url: &Url) -> Result<(Writer, Reader), Source> {
        // Older browsers do not take http and https here.
        let address = url.as_str().replacen("http", "ws", 1);
        let socket = Rc::new(Socket::open(&address).map_err(source)?);
        match poll_fn(|cx| socket.shared.borrow_mut().poll_open(cx.waker())).await {
            true => Ok((Writer(socket.clone()), Reader(socket))),
            false => Err(format!("{} cannot be reached, or is no gateway", url.as_str()).into()),
        }
    }
}

fn build(request: &Request, abort: &AbortController) -> Result<web_sys::Request, JsValue> {
    let init = RequestInit::new();
    init.set_method(request.method.as_str());
    init.set_signal(Some(&abort.signal()));
    init.set_credentials(RequestCredentials::SameOrigin);
    init.set_cache(RequestCache::NoStore);
    let headers = web_sys::Headers::new()?;
    if let Some(token) = &request.token {
        headers.set("authorization", &format!("Bearer {}", token.expose_secret()))?;
    }
    if let Some(body) = &request.body {
        headers.set("content-type", "application/json")?;
        init.set_body(&Uint8Array::from(body.as_slice()));
    }
    init.set_headers(&headers);
    web_sys::Request::new_with_str_and_init(request.url.as_str(), &init)
}

async fn bytes(response: &Response, most: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(stream) = response.body() else { return Ok(bytes) };
    let lost = |error| Error::Unreachable(source(error));
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    loop {
        let step = JsFuture::from(reader.read()).await.map_err(lost)?;
        if Reflect::get(&step, &"done".into()).map_err(lost)?.is_truthy() {
            return Ok(bytes);
        }
        let chunk: Uint8Array = Reflect::get(&step, &"value".into()).map_err(lost)?.unchecked_into();
        if bytes.len() + chunk.length() as usize > most {
            return Err(Error::Protocol("an answer without end".into()));
        }
        bytes.extend(chunk.to_vec());
    }
}

/// A WebSocket and what listens to it. Both end together.
struct Socket {
    raw: WebSocket,
    shared: Rc<RefCell<Shared>>,
    _on_open: Closure<dyn FnMut()>,
    _on_message: Closure<dyn FnMut(MessageEvent)>,
    _on_close: Closure<dyn FnMut(CloseEvent)>,
}

impl Socket {
    fn open(address: &str) -> Result<Self, JsValue> {
        let raw = WebSocket::new(address)?;
        raw.set_binary_type(BinaryType::Arraybuffer);
        let shared = Rc::<RefCell<Shared>>::default();
        let on_open = Closure::new({
            let shared = shared.clone();
            move || {
                let mut shared = shared.borrow_mut();
                shared.is_open = true;
                shared.wake();
            }
        });
        let on_message = Closure::new({
            let shared = shared.clone();
            move |event: MessageEvent| shared.borrow_mut().take_in(&event.data())
        });
        // An error is always followed by a close, which says as much.
        let on_close = Closure::new({
            let shared = shared.clone();
            move |event: CloseEvent| {
                // 1005: a close without a code; 1006: no close at all.
                let code = Some(event.code()).filter(|code| ![1005, 1006].contains(code));
                shared.borrow_mut().end(Incoming::Closed(code));
            }
        });
        raw.set_onopen(Some(on_open.as_ref().unchecked_ref()));
        raw.set_onmessage(Some(on_message.as_ref().unchecked_ref()));
        raw.set_onclose(Some(on_close.as_ref().unchecked_ref()));
        Ok(Self { raw, shared, _on_open: on_open, _on_message: on_message, _on_close: on_close })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Nothing is told after this.
        self.raw.set_onopen(None);
        self.raw.set_onmessage(None);
        self.raw.set_onclose(None);
        // On a closed socket it does nothing.
        let _ = self.raw.close();
    }
}

#[derive(Default)]
struct Shared {
    is_open: bool,
    has_ended: bool,
    /// What came, and its size.
    inbox: VecDeque<(Incoming, usize)>,
    unread: usize,
    waker: Option<Waker>,
}

impl Shared {
    fn take_in(&mut self, data: &JsValue) {
        if self.has_ended {
            return;
        }
        let text = data.dyn_ref::<JsString>();
        let size = text.map_or(1, |text| text.length() as usize);
        self.unread += size;
        if size > MAX_FRAME || self.unread > MAX_UNREAD {
            // What is not read could not be told apart from what was never sent: nothing of it is kept.
            self.inbox.clear();
            return self.end(Incoming::Lost("more comes than can be read".into()));
        }
        self.inbox.push_back((text.map_or(Incoming::Other, |text| Incoming::Text(text.into())), size));
        self.wake();
    }

    fn end(&mut self, how: Incoming) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.inbox.push_back((how, 0));
        }
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll_open(&mut self, waker: &Waker) -> Poll<bool> {
        if self.has_ended || self.is_open {
            return Poll::Ready(self.is_open);
        }
        self.waker = Some(waker.clone());
        Poll::Pending
    }

    fn poll_next(&mut self, waker: &Waker) -> Poll<Incoming> {
        match self.inbox.pop_front() {
            Some((incoming, size)) => {
                self.unread -= size;
                Poll::Ready(incoming)
            }
            None if self.has_ended => Poll::Ready(Incoming::Closed(None)),
            None => {
                self.waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }
}

/// The end of a WebSocket that is written to.
pub(crate) struct Writer(Rc<Socket>);

/// The end of a WebSocket that is read from.
pub(crate) struct Reader(Rc<Socket>);

impl Writer {
    /// Writes a text frame.
    pub(crate) async fn send(&mut self, text: String) -> Result<(), Source> {
        self.0.raw.send_with_str(&text).map_err(source)
    }

    /// Says that nothing follows.
    pub(crate) async fn close(&mut self) -> Result<(), Source> {
        self.0.raw.close().map_err(source)
    }
}

impl Reader {
    /// The next frame. Nothing is lost if the future is dropped.
    pub(crate) async fn next(&mut self) -> Incoming {
        poll_fn(|cx| self.0.shared.borrow_mut().poll_next(cx.waker())).await
    }
}
