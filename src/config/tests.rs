use super::*;
use std::path::PathBuf;
use std::time::Duration;

/// Sources as a test writes them; the file, if any, lies in the directory that comes back.
fn sources(
    flags: &[(&'static str, &str)],
    environment: &[(&str, &str)],
    file: Option<&str>,
) -> (Sources, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rushline.yaml");
    if let Some(text) = file {
        std::fs::write(&path, text).unwrap();
    }
    let sources = Sources {
        flags: flags.iter().map(|(name, text)| (*name, text.to_string())).collect(),
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        config_flag: None,
        file_default: Some(path),
    };
    (sources, dir)
}

fn resolved(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: Option<&str>) -> Resolved {
    let (sources, _dir) = sources(flags, environment, file);
    resolve(sources).unwrap()
}

/// The problems, with the directory cut from their places.
fn problems(flags: &[(&'static str, &str)], environment: &[(&str, &str)], file: Option<&str>) -> Vec<(String, String)> {
    let (sources, dir) = sources(flags, environment, file);
    let prefix = format!("{}/", dir.path().display());
    let error = resolve(sources).unwrap_err();
    error.problems.iter().map(|p| (p.to_string().replace(&prefix, ""), p.hint.clone().unwrap_or_default())).collect()
}

fn only(found: Vec<(String, String)>) -> (String, String) {
    assert_eq!(found.len(), 1, "{found:?}");
    found.into_iter().next().unwrap()
}

#[test]
fn it_runs_with_nothing_set() {
    let run = resolved(&[], &[("PATH", "/bin")], None);
    assert_eq!(run.config.http.listen, "127.0.0.1:36789".parse().unwrap());
    assert_eq!(run.config.redis.url, None);
    assert_eq!(run.config.delivery.lease, Duration::from_secs(5));
    assert_eq!(run.config.records_url().expose(), "sqlite:./rushline-data/orders.db");
    assert_eq!(run.file, None);
    assert!(run.rows().all(|(_, origin)| *origin == Origin::Default));
}

#[test]
fn a_flag_goes_over_a_variable_and_that_over_the_file() {
    let file = Some("redis:\n  url: redis://file\n  timeout_ms: 1000\n\nhttp: { body_bytes_max: 2048 }\n");
    let environment = [("RUSHLINE_REDIS_URL", "redis://environment"), ("RUSHLINE_REDIS_TIMEOUT_MS", "2_000")];
    let run = resolved(&[("redis.url", "redis://flag")], &environment, file);
    assert_eq!(run.config.redis.url.as_ref().unwrap().expose(), "redis://flag");
    assert_eq!(run.config.redis.timeout, Duration::from_secs(2));
    assert_eq!(run.config.http.body_bytes_max, 2048);

    let origin = |name| run.origin(name).unwrap().to_string();
    assert_eq!(origin("redis.url"), "flag --redis-url");
    assert_eq!(origin("redis.timeout_ms"), "environment RUSHLINE_REDIS_TIMEOUT_MS");
    assert_eq!(origin("http.body_bytes_max"), format!("file {}:5", run.file.as_ref().unwrap().display()));
    assert_eq!(origin("log.level"), "default");
}

#[test]
fn the_config_flag_goes_over_the_variable_and_a_named_file_must_exist() {
    let dir = tempfile::tempdir().unwrap();
    let (by_flag, by_variable) = (dir.path().join("flag.yaml"), dir.path().join("variable.yaml"));
    std::fs::write(&by_flag, "log: {level: warn}").unwrap();
    std::fs::write(&by_variable, "log: {level: debug}").unwrap();
    let mut sources =
        Sources { environment: vec![("RUSHLINE_CONFIG".into(), by_variable.into())], ..Sources::default() };
    assert_eq!(resolve(sources.clone()).unwrap().config.log.level, LogLevel::Debug);
    sources.config_flag = Some(by_flag);
    assert_eq!(resolve(sources.clone()).unwrap().config.log.level, LogLevel::Warn);
    sources.config_flag = Some(PathBuf::from("no-such.yaml"));
    assert!(resolve(sources).unwrap_err().to_string().starts_with("no-such.yaml: cannot be read"));
}

#[test]
fn an_unknown_key_names_its_line_and_what_was_meant() {
    let (what, hint) = only(problems(&[], &[], Some("redis:\n  timeout_ms: 5000\n  urll: redis://h\n")));
    assert_eq!(what, "rushline.yaml:3: unknown setting `redis.urll`");
    assert_eq!(hint, "did you mean `redis.url`?");
    let hint_of = |file| only(problems(&[], &[], Some(file))).1;
    assert_eq!(hint_of("reddis:\n  url: redis://h\n"), "did you mean `redis`?");
    assert_eq!(hint_of("redis:\n  listen: 1\n"), "did you mean `http.listen`?");
    assert_eq!(hint_of("ledger:\n  colour: red\n"), "`ledger` has: keep_s");
    assert_eq!(hint_of("kafka: 1\n"), "rushline config show   lists every setting");
    assert!(hint_of("redis: 7\n").starts_with("put its settings below it, indented: url, ca_file"));
}

#[test]
fn a_wrong_value_names_place_setting_and_range() {
    let (what, hint) = only(problems(&[], &[], Some("\nhttp:\n  body_bytes_max: lots\n")));
    assert_eq!(what, "rushline.yaml:3: http.body_bytes_max must be a whole number, got \"lots\"");
    assert_eq!(hint, "allowed: 1024 to 16777216 bytes");
    let (what, _) = only(problems(&[], &[("RUSHLINE_REDIS_CONNECTIONS", "0")], None));
    assert_eq!(what, "RUSHLINE_REDIS_CONNECTIONS: redis.connections is out of range, got \"0\"");
    let (what, hint) = only(problems(&[("log.level", "wrn")], &[], None));
    assert_eq!(what, "--log-level: log.level has no such word, got \"wrn\"");
    assert_eq!(hint, "did you mean `warn`? (error | warn | info | debug | trace)");
    for (name, text) in [
        ("http.listen", "36789"),
        ("http.header_timeout_ms", "10s"),
        ("http.header_timeout_ms", "-1"),
        ("redis.url", "http://host"),
        ("redis.url", "redis://"),
        ("redis.url", "redis://host:99999"),
        ("redis.prefix", ""),
        ("redis.rewrite_after_load", "always"),
        ("records.url", "oracle://host"),
        ("node.name", "a b"),
        ("runtime.threads", "0"),
        ("ledger.keep_s", "1.5"),
    ] {
        let (what, hint) = only(problems(&[(name, text)], &[], None));
        assert!(what.contains(name) && !hint.is_empty(), "{what} / {hint}");
    }
}

#[test]
fn a_list_where_a_value_belongs_is_refused() {
    let (what, _) = only(problems(&[], &[], Some("redis:\n  url: [a, b]\n")));
    assert_eq!(what, "rushline.yaml:2: redis.url must be one value, not a list or a map");
    let (what, _) = only(problems(&[], &[], Some("- a\n")));
    assert_eq!(what, "rushline.yaml:1: must be a map of sections");
}

#[test]
fn text_that_is_no_yaml_names_its_line() {
    for file in [
        "redis:\n  url: 'unfinished\n",
        "redis:\n  url: redis://a\n  url: redis://b\n",
        "a: b: c\n",
        "redis:\n\turl: x\n",
    ] {
        let (what, _) = only(problems(&[], &[], Some(file)));
        assert!(
            what.starts_with("rushline.yaml:") && what.contains("is not valid YAML") && !what.contains(" at line "),
            "{what}"
        );
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let found = problems(&[("log.format", "xml")], &[("RUSHLINE_LOG_LEVEL", "loud")], Some("log:\n  colour: red\n"));
    assert_eq!(found.len(), 3, "{found:?}");
}

#[test]
fn an_unknown_variable_is_an_error_and_those_of_others_are_not() {
    let (what, hint) = only(problems(&[], &[("RUSHLINE_REDIS_ULR", "redis://h")], None));
    assert_eq!(what, "RUSHLINE_REDIS_ULR: is no setting of rushline");
    assert_eq!(hint, "did you mean RUSHLINE_REDIS_URL?");
    resolved(
        &[],
        &[("RUSHLINE_SERVER", "x"), ("RUSHLINE_TEST_MONGO", "x"), ("REDIS_URL", "x"), ("RUSHLINE_REDIS_URL", "")],
        None,
    );
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let (what, _) =
        only(problems(&[("delivery.retry_base_ms", "5000")], &[("RUSHLINE_DELIVERY_RETRY_MAX_MS", "100")], None));
    assert!(what.ends_with("delivery.retry_base_ms (5000) must not be above delivery.retry_max_ms (100)"), "{what}");
}

#[test]
fn tokens_are_one_text_or_a_list() {
    let (one, other) = ("1".repeat(64), "2".repeat(64));
    let files = [
        format!("security:\n  tokens: shop:buyer:{one}, ops:reader+client:{other}\n"),
        format!("security:\n  tokens:\n    - shop:buyer:{one}\n    - 'ops:reader+client:{other}'\n"),
        format!(
            "security:\n  tokens:\n    - {{name: shop, role: buyer, sha256: '{one}'}}\n    - name: ops\n      roles: [reader, client]\n      sha256: {other}x\n"
        )
        .replace(&format!("{other}x"), &format!("\"{other}\"")),
    ];
    for file in &files {
        let run = resolved(&[], &[], Some(file));
        let shown: Vec<String> = run.config.security.tokens.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["shop:buyer", "ops:reader+client"], "{file}");
        assert!(!format!("{:?}", run.config).contains(&one), "no hash is shown");
    }
    for (file, said) in [
        ("security: {tokens: 'shop:buyer:hunter2'}", "has no SHA-256"),
        ("security: {tokens: [{name: a, password: hunter2}]}", "has no `password`"),
        ("security: {tokens: [[a]]}", "must be a list of lines"),
        ("security: {allow_open: maybe}", "has no such word"),
    ] {
        let (what, _) = only(problems(&[], &[], Some(file)));
        assert!(what.contains(said) && !what.contains("hunter2"), "{what}");
    }
}

#[test]
fn what_keeps_others_out_is_given_whole() {
    for (file, missing) in [
        ("tls: {cert: c.pem}", "tls.key"),
        ("tls: {key: c.key}", "tls.cert"),
        ("tls: {cert: c.pem, key: c.key, require_client: true}", "tls.client_ca"),
        ("jwt: {keys: k.json, issuer: i}", "jwt.audience"),
        ("jwt: {keys: k.json, audience: a}", "jwt.issuer"),
        ("jwt: {audience: a}", "jwt.keys"),
    ] {
        let (what, _) = only(problems(&[], &[], Some(file)));
        assert!(what.contains(&format!("needs {missing} beside it")), "{what}");
    }
}

#[test]
fn the_block_of_dtms_file_says_where_to_register() {
    let dtm = "MicroService:\n  Driver: 'dtm-driver-gozero'\n  Target: 'etcd://localhost:2379/dtmservice'\n  EndPoint: 'localhost:36790'\n";
    let run = resolved(&[], &[], Some(dtm));
    let registry = &run.config.registry;
    assert_eq!(registry.target.as_ref().unwrap().expose(), "etcd://localhost:2379/dtmservice");
    assert_eq!(registry.endpoint.as_deref(), Some("localhost:36790"));
    let ours = [
        ("RUSHLINE_REGISTRY_TARGET", "etcd://localhost:2379/dtmservice"),
        ("RUSHLINE_REGISTRY_ENDPOINT", "localhost:36790"),
    ];
    assert_eq!(resolved(&[], &ours, None).config.registry, *registry);
    // As it is in dtm's sample: nothing to register.
    let empty = "MicroService:\n  Driver: 'default'\n  Target: ''\n  EndPoint: ''\n";
    assert_eq!(resolved(&[], &[], Some(empty)).config.registry.target, None);

    for (file, what, hint) in [
        (
            "MicroService:\n  Endpoint: h:1\n",
            "rushline.yaml:2: unknown setting `MicroService.Endpoint`",
            "`MicroService` has: Driver, Target, EndPoint",
        ),
        (
            "MicroService:\n  Driver: dtm-driver-kratos\n",
            "rushline.yaml:2: registry.driver has no such word, got \"dtm-driver-kratos\"",
            "dtm-driver-gozero | default",
        ),
        (
            "MicroService:\n  EndPoint: grpc://h:1\n",
            "rushline.yaml:2: registry.endpoint must be HOST:PORT, got \"grpc://h:1\"",
            "10.1.2.3:36790",
        ),
        (
            "registry: {target: 'consul://h:8500/x'}",
            "rushline.yaml:1: registry.target is not usable: `consul://h:8500/x`: services in Consul",
            "etcd://",
        ),
        (
            "registry: {cert_file: c.pem}",
            "rushline.yaml:1: registry.cert_file needs registry.key_file beside it",
            "registry.key_file",
        ),
    ] {
        let (said, hinted) = only(problems(&[], &[], Some(file)));
        assert!(said.starts_with(what) && hinted.contains(hint), "{said} / {hinted}");
    }
    // An account alone, for services that are looked up there.
    resolved(&[("registry.target", "etcd://h:1/?user=u&password=p")], &[], None);
}

#[test]
fn no_password_is_in_any_message() {
    let run = resolved(
        &[
            ("redis.url", "redis://user:hunter2@host"),
            ("records.url", "mongodb://u:hunter2@a:1,b:2/db"),
            ("registry.target", "etcd://a:1,b:2/?user=u&password=hunter2"),
        ],
        &[],
        None,
    );
    let shown: String = SETTINGS
        .iter()
        .map(|setting| format!("{} {}", setting.text(&run.config), setting.value(&run.config)))
        .collect();
    assert!(!shown.contains("hunter2") && !format!("{run:?}").contains("hunter2"));
    assert!(shown.contains("redis://user:***@host"));

    // Wrong ones, misplaced ones, and a file that does not parse.
    for text in
        ["redis://user:hunter2@host:99999", "http://user:hunter2@host", "hunter2", "hunter2:x", "redis://u:hunter2@"]
    {
        for name in ["redis.url", "records.url", "registry.target"] {
            assert!(!format!("{:?}", problems(&[(name, text)], &[], None)).contains("hunter2"), "{name} {text}");
        }
    }
    let misplaced =
        problems(&[("http.listen", "redis://u:hunter2@h"), ("redis.connections", "redis://u:hunter2@h")], &[], None);
    assert!(!format!("{misplaced:?}").contains("hunter2"));
    for file in [
        "redis:\n  password: hunter2\n",
        "redis:\n  url: 'redis://:hunter2@h\n",
        "redis:\n url: a\n url: redis://:hunter2@h\n",
    ] {
        let found = format!("{:?}", problems(&[], &[], Some(file)));
        assert!(!found.contains("hunter2"), "{found}");
    }
}

#[test]
fn the_sample_changes_nothing_and_uncommented_it_is_every_default() {
    let sample = sample();
    let run = resolved(&[], &[], Some(&sample));
    assert!(run.rows().all(|(_, origin)| *origin == Origin::Default));

    let active: String = sample.lines().map(|line| uncommented(line) + "\n").collect();
    let run = resolved(&[], &[], Some(&active));
    let defaults = Config::default();
    for (setting, origin) in run.rows() {
        assert!(matches!(origin, Origin::File { .. }), "{} is not in the sample", setting.name);
        if (setting.unwritten)().is_none() {
            assert_eq!(setting.value(&run.config), setting.value(&defaults), "{}", setting.name);
        }
    }
}

/// `  #key: value` becomes `  key: value`; prose has a space behind its `#`.
fn uncommented(line: &str) -> String {
    match line.split_once('#') {
        Some((indent, rest)) if !rest.starts_with(' ') => format!("{indent}{rest}"),
        _ => line.to_owned(),
    }
}

#[test]
fn every_setting_is_documented_and_named_once() {
    for setting in SETTINGS {
        assert!(setting.doc.iter().all(|line| !line.trim().is_empty()), "{}", setting.name);
        assert_eq!(SETTINGS.iter().filter(|other| other.flag() == setting.flag()).count(), 1, "{}", setting.name);
        if let Some(section) = setting.section() {
            assert!(SECTIONS.iter().any(|(name, _)| *name == section), "{}", setting.name);
        }
    }
    assert_eq!(Setting::find("redis.url").unwrap().variable(), "RUSHLINE_REDIS_URL");
    assert_eq!(Setting::find("data_dir").unwrap().flag(), "data-dir");
}
