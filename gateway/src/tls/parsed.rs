//! A certificate's contents.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ipnet::IpNet;
use rustls::pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, GeneralSubtree},
    parse_x509_certificate,
    time::ASN1Time,
};

use super::host_names::PermittedSubtrees;

/// The fields that matter here.
#[derive(Debug, Clone)]
pub(crate) struct ParsedCertificate {
    pub(crate) subject: String,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(super) subject_alt_names: BTreeSet<String>,
    pub(super) is_ca: bool,
    pub(super) is_self_signed: bool,
    pub(crate) permitted: PermittedSubtrees,
    /// Raw.
    pub(super) public_key: Vec<u8>,
}

impl ParsedCertificate {
    /// None if the certificate is malformed.
    pub(crate) fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let read = parsed(certificate)?;
        let names = read.subject_alternative_name().ok()?.map(|names| &names.value.general_names);
        Some(Self {
            subject: common_name(&read),
            not_before: time(read.validity().not_before),
            not_after: time(read.validity().not_after),
            subject_alt_names: names.into_iter().flatten().filter_map(name).collect(),
            is_ca: read.is_ca(),
            is_self_signed: read.verify_signature(None).is_ok(),
            permitted: permitted_subtrees(&read)?,
            public_key: read.public_key().subject_public_key.data.to_vec(),
        })
    }
}

pub(super) fn is_signed_by(certificate: &CertificateDer<'_>, authority: &CertificateDer<'_>) -> bool {
    let pair = parsed(certificate).zip(parsed(authority));
    pair.is_some_and(|(certificate, authority)| {
        certificate.issuer().as_raw() == authority.subject().as_raw()
            && certificate.verify_signature(Some(authority.public_key())).is_ok()
    })
}

fn parsed<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    parse_x509_certificate(certificate).ok().map(|(_, read)| read)
}

fn common_name(read: &X509Certificate<'_>) -> String {
    let name = read.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    name.map_or_else(|| read.subject().to_string(), str::to_owned)
}

fn time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => address(bytes).map(|address| address.to_string()),
        _ => None,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

fn permitted_subtrees(read: &X509Certificate<'_>) -> Option<PermittedSubtrees> {
    let constraints = read.name_constraints().ok()?;
    let subtrees = constraints.and_then(|constraints| constraints.value.permitted_subtrees.as_deref());
    let mut permitted = PermittedSubtrees::default();
    for GeneralSubtree { base } in subtrees.into_iter().flatten() {
        match base {
            GeneralName::DNSName(domain) => {
                permitted.domains.get_or_insert_default().push(domain.to_ascii_lowercase());
            }
            GeneralName::IPAddress(bytes) => {
                let (base, mask) = bytes.split_at(bytes.len() / 2);
                let range = IpNet::with_netmask(address(base)?, address(mask)?).ok()?;
                permitted.ranges.get_or_insert_default().push(range);
            }
            _ => {}
        }
    }
    Some(permitted)
}
