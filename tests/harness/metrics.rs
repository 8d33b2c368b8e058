//! What a server says of itself at `GET /metrics`.

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{Scheduler, patiently};

/// Every series of one reading, by its name with its labels as they are written, such as `a_total{kind="x"}`.
#[derive(Debug, Clone)]
pub struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    /// What a series says. It has to be there.
    pub fn of(&self, series: &str) -> f64 {
        let value = self.0.get(series).copied();
        value.unwrap_or_else(|| panic!("no series {series} in {:#?}", self.0))
    }

    /// Names of all series, with their labels.
    pub fn series(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Scheduler {
    /// Reads the metrics. Fails on a line that is not of the text format, and on a series that is there twice.
    pub async fn metrics(&self) -> Metrics {
        let text = patiently("GET /metrics", self.get("/metrics")).await;
        let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP response");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        let mut series = BTreeMap::new();
        for line in body.lines().filter(|line| !line.starts_with("# ")) {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            let value = value.parse().expect("a value is a number");
            let before = series.insert(name.to_owned(), value);
            assert!(before.is_none(), "{name} is there twice");
        }
        Metrics(series)
    }

    /// The whole response to a request over plain HTTP.
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.health_address())
            .await
            .expect("the health port can be reached");
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .await
            .expect("a request can be written");
        let mut text = String::new();
        // One request a connection: the server closes it.
        stream
            .read_to_string(&mut text)
            .await
            .expect("a response can be read");
        text
    }
}
