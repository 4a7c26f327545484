//! A body that is too long is refused in the API's own words, and nothing of it is taken. Needs no server.

use serde_json::json;

use crate::support::alone::Alone;

const MOST: usize = 2000;

#[test]
fn a_body_that_is_too_long_is_refused_at_every_door() {
    let alone = Alone::start(&format!("[http]\nmax_body_bytes = {MOST}\n"));
    let service = &alone.service;
    let doors = [
        ("POST", "/api/v1/notifications"),
        ("PUT", "/api/v1/recipients/ada"),
        ("POST", "/api/v1/suppressions"),
        ("POST", "/webhooks/email"),
    ];
    // The length of a chunked one is not announced: it is found out while the body is read.
    let lengths: [&[(&str, &str)]; 2] = [&[], &[("Transfer-Encoding", "chunked")]];
    for ((method, path), headers) in doors.into_iter().flat_map(|door| lengths.map(|headers| (door, headers))) {
        let refused = service.send(method, path, headers, &request(MOST + 1));
        assert_eq!(refused.status, 413, "{path}: {}", refused.text());
        let problem = refused.json();
        assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(413)), "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|why| why.contains("2000 bytes")), "{problem}");
    }
    assert_eq!(service.get("/api/v1/notifications").json()["items"], json!([]), "nothing was taken");
    assert_eq!(service.get("/api/v1/recipients/ada").status, 404);
    let longest = service.send("POST", "/api/v1/notifications", &[], &request(MOST));
    assert_eq!(longest.status, 202, "{}", longest.text());
}

/// A request for a notification, of exactly so many bytes.
fn request(bytes: usize) -> String {
    let with = |note: &str| {
        let data = json!({"orderId": "4711", "note": note});
        json!({"channel": "email", "recipient": "a@example.com", "template": "order_shipped", "data": data}).to_string()
    };
    with(&"x".repeat(bytes - with("").len()))
}
