//! The dashboard: a page at `/` that asks the HTTP interface like anybody else. Its files are inside the program, as they
//! stand in `assets/`: no build step, nothing from elsewhere.
//!
//! What buyers and services write ends up on this page, read by people who may stop sales. So its scripts make text nodes
//! only (`dom.js`), and the browser is told to run nothing but the files here and to talk to nobody but this server.

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
};
use http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::sync::LazyLock;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

struct Asset {
    name: &'static str,
    kind: &'static str,
    body: &'static [u8],
}

macro_rules! assets {
    ($($name:literal $kind:expr),+ $(,)?) => {
        &[$(Asset { name: $name, kind: $kind, body: include_bytes!(concat!("assets/", $name)) }),+]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const INDEX: &str = "index.html";
const ASSETS: &[Asset] = assets![
    "index.html" "text/html; charset=utf-8",
    "style.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "api.js" SCRIPT,
    "app.js" SCRIPT,
    "audit.js" SCRIPT,
    "buyers.js" SCRIPT,
    "countdown.js" SCRIPT,
    "dialog.js" SCRIPT,
    "dom.js" SCRIPT,
    "format.js" SCRIPT,
    "live.js" SCRIPT,
    "login.js" SCRIPT,
    "nodes.js" SCRIPT,
    "order.js" SCRIPT,
    "parts.js" SCRIPT,
    "reference.js" SCRIPT,
    "sale.js" SCRIPT,
    "sales.js" SCRIPT,
    "session.js" SCRIPT,
    "topics.js" SCRIPT,
    "transaction.js" SCRIPT,
    "transactions.js" SCRIPT,
    "values.js" SCRIPT,
];

/// By place in [`ASSETS`]: what tells one version of a file from another.
static TAGS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let tag = |asset: &Asset| {
        let mut tag = String::from("\"");
        for byte in &Sha256::digest(asset.body)[..8] {
            // Writing to a String cannot fail.
            let _ = write!(tag, "{byte:02x}");
        }
        tag + "\""
    };
    ASSETS.iter().map(tag).collect()
});

/// `/`, the files under `/ui/`, the page of the interface, and where dtm has its own page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| answer(INDEX, &headers)))
        .route("/ui/{name}", get(async |Path(name): Path<String>, headers: HeaderMap| answer(&name, &headers)))
        .route("/docs", get(async || Redirect::temporary("/#/api")))
        .route("/admin", get(async || Redirect::permanent("/")))
        .route("/admin/", get(async || Redirect::permanent("/")))
}

fn answer(name: &str, headers: &HeaderMap) -> Response {
    let Some(at) = ASSETS.iter().position(|asset| asset.name == name) else {
        return (StatusCode::NOT_FOUND, "the dashboard has no such file\n").into_response();
    };
    let (asset, tag) = (&ASSETS[at], &TAGS[at]);
    let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(CONTENT_TYPE, asset.kind)], asset.body).into_response(),
    };
    let told = response.headers_mut();
    // Asked for anew each time, and mostly answered with 304: after an update nobody sees half of the old page.
    told.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    told.insert(ETAG, HeaderValue::from_str(tag).expect("hexadecimal digits in quotes"));
    told.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"), // for browsers that do not know frame-ancestors
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        told.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn folder() -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dashboard/assets")
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_program() {
        let there: BTreeSet<String> = std::fs::read_dir(folder())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(there, ASSETS.iter().map(|asset| asset.name.to_owned()).collect());
    }

    /// What would make text into markup or script is not in the scripts, and nothing comes from elsewhere.
    #[test]
    fn no_script_reads_text_as_markup() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.body).unwrap();
            for word in
                ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "new Function", "srcdoc"]
            {
                assert!(!text.contains(word), "{}: {word}", asset.name);
            }
            for start in ["src=\"http", "href=\"http", "from 'http", "url(http", "style=\""] {
                assert!(!text.contains(start), "{}: {start}", asset.name);
            }
        }
    }
}
