//! Certificates that openssl makes, for a server with TLS and for its clients.

use super::process::Process;
use super::servers::program;
use std::path::Path;

/// Makes `ca`, `server` and `client`, each with `.pem` and `.key`, in the directory of a server. Not by etcd's own
/// `--auto-tls`: its curve P-521 is none that ring speaks.
pub fn make_certificates(server: &Process) {
    make(server.directory(), |openssl, arguments| server.run(openssl, arguments));
}

/// The same in any directory.
pub fn make_certificates_in(directory: &Path) {
    make(directory, |openssl, arguments| {
        let output = std::process::Command::new(openssl).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
}

fn make(directory: &Path, run: impl Fn(&Path, &[&str])) {
    let file = |name: &str| directory.join(name);
    let config = "[req]\ndistinguished_name = dn\n[dn]\n\
        [signer]\nbasicConstraints = critical,CA:TRUE\nkeyUsage = critical,keyCertSign\n\
        [signed]\nbasicConstraints = critical,CA:FALSE\nsubjectAltName = IP:127.0.0.1\n\
        extendedKeyUsage = serverAuth,clientAuth\n";
    std::fs::write(file("openssl.cnf"), config).unwrap();
    let openssl = program("openssl", &[]);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let make = |name: &str, extensions: &str, signer: &[&str]| {
        let (key, certificate, config) =
            (path(&format!("{name}.key")), path(&format!("{name}.pem")), path("openssl.cnf"));
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-x509", "-config", &config, "-extensions", extensions, "-subj", &subject];
        arguments.extend(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]);
        arguments.extend(["-keyout", &key, "-out", &certificate]);
        arguments.extend(signer);
        run(Path::new(&openssl), &arguments);
    };
    let (ca, ca_key) = (path("ca.pem"), path("ca.key"));
    make("ca", "signer", &[]);
    make("server", "signed", &["-CA", &ca, "-CAkey", &ca_key]);
    make("client", "signed", &["-CA", &ca, "-CAkey", &ca_key]);
}
