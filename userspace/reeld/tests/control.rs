// SPDX-License-Identifier: GPL-2.0-or-later

//! The control socket.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use reeld::checkpoint::Orders;
use reeld::control::{document, Identity, Socket};
use reeld::status::Status;

fn identity() -> Identity {
    Identity {
        name: "data".into(),
        mount: "/data".into(),
        pid: 7,
        stream: uuid::Uuid::from_u128(9),
        timeline: 1,
        spool_directory: "/var/spool/x".into(),
        pool: "daily".into(),
    }
}

#[test]
fn one_connection_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/data.sock");
    let status = Arc::new(Status::default());
    status.set_spooled(4096);
    status.set_attached(true);
    status.error("the sky is falling");
    let socket = Socket::open(&path, identity(), status.clone(), Orders::new().unwrap()).unwrap();
    for _ in 0..3 {
        let mut text = String::new();
        let mut client = UnixStream::connect(&path).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_string(&mut text).unwrap();
        let found: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found["version"], 1);
        assert_eq!(found["name"], "data");
        assert_eq!(found["state"], "capturing");
        assert_eq!(found["stall"], "none");
        assert_eq!(found["lsn"]["spooled"], 4096);
        assert_eq!(found["spool"]["full"], serde_json::Value::Null);
        assert_eq!(found["media"]["state"], "starting");
        assert_eq!(found["errors"][0]["message"], "the sky is falling");
    }
    drop(socket);
    assert!(!path.exists());
}

#[test]
fn requests_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.sock");
    let status = Arc::new(Status::default());
    let _socket = Socket::open(&path, identity(), status.clone(), Orders::new().unwrap()).unwrap();
    let ask = |request: &str| {
        let mut client = UnixStream::connect(&path).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()
    };
    assert_eq!(ask("{\"checkpoint\":\"start\"}")["error"], "no mount is attached");
    assert_eq!(ask("{\"checkpoint\":\"stop\"}")["error"], "no checkpoint is being made");
    for wrong in ["{", "{\"checkpoint\":\"often\"}", "{\"reboot\":\"now\"}", "[]", &"x".repeat(3000)] {
        let error = ask(wrong)["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains("not understood"), "{wrong}: {error}");
    }
    // And one that says nothing and does not go away.
    let mut silent = UnixStream::connect(&path).unwrap();
    let mut text = String::new();
    silent.read_to_string(&mut text).unwrap();
    assert!(text.contains("\"checkpoint\":{\"state\":\"idle\""), "{text}");
}

#[test]
fn a_remainder_is_replaced_and_anything_else_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Socket::open(&path, identity(), Arc::default(), Orders::new().unwrap()).unwrap());
    std::fs::write(&path, "precious").unwrap();
    assert!(Socket::open(&path, identity(), Arc::default(), Orders::new().unwrap()).is_err());
    assert!(path.exists());
}

#[test]
fn keys_are_not_said_twice() {
    let text = String::from_utf8(document(&identity(), &Status::default()).unwrap()).unwrap();
    for key in ["\"spool\":", "\"pool\":", "\"mount\":", "\"ring\":", "\"media\":"] {
        assert_eq!(text.matches(key).count(), 1, "{key} in {text}");
    }
}
