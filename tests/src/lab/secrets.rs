//! Certificates and a password for etcd.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::netns::run;

#[derive(Clone)]
pub(super) struct Secrets {
    dir: PathBuf,
}

const PASSWORD: &str = "pass:with colon";
const ROOT: &str = "secret";

impl Secrets {
    /// An authority, a certificate for all members and one for all clients.
    pub(super) fn make(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let openssl =
            |arguments: &[&str]| run(Command::new("openssl").current_dir(dir).args(arguments)).map(drop);
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let ca = ["req", "-x509", "-days", "30", "-subj", "/CN=lab", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&ca[..], &key[..]].concat())?;
        // One certificate may serve as a server's and as a client's. No client's common name is a user of etcd:
        // the password says who it is.
        let names: Vec<String> = (201..=203).map(|n| format!("IP:10.77.0.{n}")).collect();
        for (name, san) in [("member", names.join(",")), ("client", "DNS:client".to_owned())] {
            let (key_file, request, cert) =
                (format!("{name}.key"), format!("{name}.csr"), format!("{name}.pem"));
            let subject = ["req", "-new", "-subj", "/O=lab", "-keyout", &key_file, "-out", &request];
            openssl(&[&subject[..], &key[..]].concat())?;
            let extensions = format!("{name}.ext");
            fs::write(
                dir.join(&extensions),
                format!("subjectAltName={san}\nextendedKeyUsage=serverAuth,clientAuth\n"),
            )?;
            openssl(&[
                "x509",
                "-req",
                "-days",
                "30",
                "-in",
                &request,
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-extfile",
                &extensions,
                "-out",
                &cert,
            ])?;
        }
        fs::write(dir.join("user"), format!("vipd:{PASSWORD}\n"))?;
        Ok(Self { dir: dir.to_owned() })
    }

    fn path(&self, file: &str) -> String {
        self.dir.join(file).display().to_string()
    }

    /// Lines of node.toml.
    pub(super) fn config(&self) -> String {
        let line = |key: &str, file: &str| format!("{key} = \"{}\"\n", self.path(file));
        [
            line("ca", "ca.pem"),
            line("cert", "client.pem"),
            line("key", "client.key"),
            line("user-file", "user"),
        ]
        .concat()
    }

    /// Of etcd's command line.
    pub(super) fn server(&self) -> Vec<String> {
        let file = |option: &str, file: &str| format!("--{option}={}", self.path(file));
        vec![
            file("cert-file", "member.pem"),
            file("key-file", "member.key"),
            file("trusted-ca-file", "ca.pem"),
            "--client-cert-auth".into(),
        ]
    }

    /// Of etcdctl's, as root.
    pub(super) fn client(&self) -> Vec<String> {
        let file = |option: &str, file: &str| format!("--{option}={}", self.path(file));
        let mut all = vec![file("cacert", "ca.pem"), file("cert", "client.pem"), file("key", "client.key")];
        if self.dir.join("locked").exists() {
            all.push(format!("--user=root:{ROOT}"));
        }
        all
    }

    /// From now on a password is needed; vipd may do what it needs and no more.
    pub(super) fn lock(&self, ctl: impl Fn(&[&str]) -> Result<String>) -> Result<()> {
        ctl(&["user", "add", &format!("root:{ROOT}")])?;
        ctl(&["user", "grant-role", "root", "root"])?;
        ctl(&["role", "add", "vipd"])?;
        ctl(&["role", "grant-permission", "--prefix", "vipd", "readwrite", "/vipd/"])?;
        ctl(&["user", "add", &format!("vipd:{PASSWORD}")])?;
        ctl(&["user", "grant-role", "vipd", "vipd"])?;
        ctl(&["auth", "enable"])?;
        fs::write(self.dir.join("locked"), "")?;
        Ok(())
    }
}
