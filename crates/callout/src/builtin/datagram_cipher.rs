//! `openwfp.datagram-cipher`: encrypts the datagrams of chosen flows on their way out, and decrypts them on their way in.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use openwfp_model::{ConditionFlags, Data, Guid};

use super::settings::{Settings, SettingsError};
use super::{BuiltIn, Setting, layers};
use crate::{
    Callout, Classification, ClassifyOut, Direction, Filter, Notification, Platform, Refused, Registration, Report,
};

const LAYERS: &[&str] = &["DATAGRAM_DATA"];

pub(super) const BUILT_IN: BuiltIn = BuiltIn {
    name: "openwfp.datagram-cipher",
    about: "encrypts the UDP datagrams of chosen flows and decrypts them at the other end (XChaCha20-Poly1305)",
    layers: LAYERS,
    settings: &[
        Setting {
            name: "key",
            kind: "32 bytes, as { base64 = \"…\" }",
            default: Some("that of each filter's provider context"),
            about: "what both ends know; a filter's provider context may hold another `key`",
        },
        Setting {
            name: "salt",
            kind: "a number",
            default: Some("a random one"),
            about: "the part of the nonce that tells ends apart; a fixed one repeats a replay to the byte, and is not for live traffic",
        },
    ],
    make: |settings| Ok(Arc::new(DatagramCipher::new(settings)?)),
};

const NONCE: usize = 24;

/// What stands for the version of this format in what is authenticated.
const VERSION: &[u8] = b"openwfp datagram 1";

/// The callout. A datagram's payload becomes nonce (24 bytes), ciphertext and tag (16 bytes): 40 bytes more, for which the path MTU has to
/// leave room. What arrives and was not made with the key is blocked. Loopback stays as it is. A datagram that is recorded and sent once more is taken: who
/// minds has to number datagrams.
pub struct DatagramCipher {
    key: Option<[u8; 32]>,
    salt: u64,
    counter: AtomicU64,
    platform: OnceLock<Platform>,
}

impl DatagramCipher {
    fn new(settings: &Settings<'_>) -> Result<Self, SettingsError> {
        let key = match settings.byte_strings("key")?.as_deref() {
            None => None,
            Some([key]) => Some(*key),
            Some(_) => Some(&[][..]),
        };
        let wrong = SettingsError::Wrong { name: "key", expected: "32 bytes" };
        let key = key.map(|key| <[u8; 32]>::try_from(key).map_err(|_| wrong)).transpose()?;
        let salt = settings.number("salt", 0..=i64::MAX, "a number from 0 on")?;
        let salt = salt.map_or_else(|| RandomState::new().hash_one("salt"), i64::unsigned_abs);
        Ok(Self { key, salt, counter: AtomicU64::new(0), platform: OnceLock::new() })
    }

    /// The key for a filter.
    fn key(&self, filter: &Filter) -> Result<[u8; 32], &'static str> {
        match (filter.entry("key"), self.key) {
            (Some(Data::Bytes(key)), _) => key.as_slice().try_into().map_err(|_| "`key` has to have 32 bytes"),
            (Some(_), _) => Err("`key` has to be bytes"),
            (None, Some(key)) => Ok(key),
            (None, None) => Err("there is no `key`, neither in the settings nor in a provider context"),
        }
    }

    /// Unlike any other: by the clock, by a counter, and by which end it is.
    fn nonce(&self, now: u64) -> [u8; NONCE] {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let mut nonce = [0; NONCE];
        nonce[..8].copy_from_slice(&now.to_be_bytes());
        nonce[8..16].copy_from_slice(&counter.to_be_bytes());
        nonce[16..].copy_from_slice(&self.salt.to_be_bytes());
        nonce
    }

    fn convert(&self, direction: Direction, key: &[u8; 32], payload: &[u8], now: u64) -> Option<Vec<u8>> {
        let cipher = XChaCha20Poly1305::new(key.into());
        match direction {
            Direction::Outbound => {
                let nonce = self.nonce(now);
                let sealed = cipher.encrypt(XNonce::from_slice(&nonce), Payload { msg: payload, aad: VERSION }).ok()?;
                Some([&nonce[..], &sealed].concat())
            }
            Direction::Inbound => {
                let (nonce, sealed) = payload.split_at_checked(NONCE)?;
                cipher.decrypt(XNonce::from_slice(nonce), Payload { msg: sealed, aad: VERSION }).ok()
            }
        }
    }
}

/// Only UDP says itself how long it is, and only a whole datagram can be sealed.
fn is_whole_udp(event: &Classification<'_>) -> bool {
    event.values.protocol() == Some(17) && event.metadata.fragment.is_none()
}

impl Callout for DatagramCipher {
    fn registration(&self) -> Registration {
        Registration::new(Guid::named("built-in callout", BUILT_IN.name), BUILT_IN.name).at(layers(LAYERS))
    }

    fn registered(&self, platform: &Platform) {
        let _ = self.platform.set(platform.clone());
    }

    fn notify(&self, notification: Notification<'_>) -> Result<(), Refused> {
        match notification {
            Notification::FilterAdded(filter) => self.key(filter).map(|_| ()).map_err(Refused::new),
            _ => Ok(()),
        }
    }

    fn classify(&self, event: &mut Classification<'_>, out: &mut ClassifyOut) {
        let loopback = event.values.flags().contains(ConditionFlags::IS_LOOPBACK);
        // What never leaves the machine is for both ends at once.
        if event.injection_state().is_own() || loopback {
            return out.permit();
        }
        let converted = match (event.packet(), event.metadata.direction, self.key(event.filter)) {
            (Some(packet), Some(direction), Ok(key)) if is_whole_udp(event) => {
                let now = event.metadata.time.nanoseconds();
                self.convert(direction, &key, packet.payload(), now).map(|payload| (packet, payload))
            }
            _ => None,
        };
        match converted {
            // Without the right this is a veto: nothing passes in clear.
            Some((packet, payload)) => {
                out.replace_payload(&packet, &payload);
            }
            None => {
                out.block();
                out.clear_action_right();
                if let Some(platform) = self.platform.get() {
                    platform.report(Report::entries([("refused", Data::Text("not made with the key".to_owned()))]));
                }
            }
        }
    }
}
