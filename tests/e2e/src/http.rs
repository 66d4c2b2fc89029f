//! Plain HTTP, with no more knowledge of the API than a path and a body.

use std::time::Duration;

use reqwest::{
    Client, Method, RequestBuilder,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;

use crate::PATIENCE;

/// Calls one service, with the same headers each time.
#[derive(Clone, Debug)]
pub struct Caller {
    http: Client,
    base: String,
    headers: HeaderMap,
}

/// What a service said.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body as JSON; null if it is empty or none.
    pub body: Value,
}

impl Caller {
    /// Calls the service at this address, without credentials.
    pub fn new(base: impl Into<String>) -> Self {
        // Servers are killed under these tests, so no connection is used twice.
        let http = Client::builder().pool_max_idle_per_host(0).no_proxy().build().unwrap();
        Self { http, base: base.into(), headers: HeaderMap::new() }
    }

    /// With one header more; it may come twice.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
        self
    }

    /// With a user's token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.with("authorization", &format!("Bearer {token}"))
    }

    /// With the service token.
    #[must_use]
    pub fn service(self, token: &str) -> Self {
        self.with("authorization", &format!("Service {token}"))
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None, "").await
    }

    /// POST of a JSON body.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, Some("application/json"), body.to_string()).await
    }

    /// DELETE.
    pub async fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, None, "").await
    }

    /// Any call, with a body that may be anything.
    pub async fn call(&self, method: &str, path: &str, content_type: Option<&str>, body: impl Into<Vec<u8>>) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request =
            self.http.request(method, format!("{}{path}", self.base)).headers(self.headers.clone()).body(body.into());
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        Self::ask(request, PATIENCE).await.unwrap()
    }

    /// GET; none where no answer comes in this time.
    pub async fn try_get(&self, path: &str, patience: Duration) -> Option<Answer> {
        let request = self.http.get(format!("{}{path}", self.base)).headers(self.headers.clone());
        Self::ask(request, patience).await.ok()
    }

    /// POST of a JSON body; none where no answer comes in this time.
    pub async fn try_post(&self, path: &str, body: &Value, patience: Duration) -> Option<Answer> {
        let request = self.http.post(format!("{}{path}", self.base)).headers(self.headers.clone()).json(body);
        Self::ask(request, patience).await.ok()
    }

    async fn ask(request: RequestBuilder, patience: Duration) -> reqwest::Result<Answer> {
        let response = request.timeout(patience).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?;
        Ok(Answer { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
    }
}

impl Answer {
    /// The body of an answer that must have this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.body
    }

    /// An error as all errors are: this status, this code, a sentence, and nothing more.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) {
        self.is_error_of("", status, code);
    }

    /// The same, in a table of cases.
    #[track_caller]
    pub fn is_error_of(&self, case: &str, status: u16, code: &str) {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{case}: {self:?}");
        assert!(self.body["error"].as_str().is_some_and(|text| !text.is_empty()), "{case}: {self:?}");
        assert_eq!(self.body.as_object().unwrap().len(), 2, "{case}: {self:?}");
        assert_eq!(self.headers.get(CONTENT_TYPE).unwrap(), "application/json", "{case}: {self:?}");
    }
}
