//! What the public errors of the platform mean.

use std::fmt;

pub use crate::generated::fwp_errors::FwpError;

impl FwpError {
    /// The public code (`HRESULT`).
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The error of that code.
    pub fn from_code(code: u32) -> Option<FwpError> {
        FwpError::ALL.into_iter().find(|error| error.code() == code)
    }

    /// The meaning, in a sentence.
    pub const fn message(self) -> &'static str {
        match self {
            FwpError::CalloutNotFound => "there is no such callout",
            FwpError::ConditionNotFound => "the layer has no such field to test",
            FwpError::FilterNotFound => "there is no such filter",
            FwpError::LayerNotFound => "there is no such layer",
            FwpError::ProviderNotFound => "there is no such provider",
            FwpError::ProviderContextNotFound => "there is no such provider context",
            FwpError::SublayerNotFound => "there is no such sublayer",
            FwpError::NotFound => "there is no such object",
            FwpError::AlreadyExists => "an object of that key or id is there already",
            FwpError::InUse => "other objects refer to the object, so it has to stay",
            FwpError::DynamicSessionInProgress => "a dynamic session cannot do this",
            FwpError::WrongSession => "the object belongs to another session",
            FwpError::NoTxnInProgress => "this needs an explicit transaction",
            FwpError::TxnInProgress => "this cannot be done inside an explicit transaction",
            FwpError::TxnAborted => "the transaction was aborted by the engine",
            FwpError::SessionAborted => "the session was ended by the engine; open another",
            FwpError::IncompatibleTxn => "a read-only transaction cannot do this",
            FwpError::Timeout => "the transaction lock was not free in time",
            FwpError::NetEventsDisabled => "net events are not being collected",
            FwpError::IncompatibleLayer => "this cannot be done at that layer",
            FwpError::KmClientsOnly => "only callers in the kernel can do this",
            FwpError::LifetimeMismatch => "an object cannot refer to one that may end before it",
            FwpError::BuiltinObject => "the object is built in, so it has to stay",
            FwpError::TooManyCallouts => "no more callouts can be registered",
            FwpError::NotificationDropped => "a notification was lost, since its queue was full",
            FwpError::TrafficMismatch => "the traffic is not that of the security association",
            FwpError::IncompatibleSaState => "the security association is in another state",
            FwpError::NullPointer => "a part that is needed is missing",
            FwpError::InvalidEnumerator => "a value is no member of its enumeration",
            FwpError::InvalidFlags => "the flags are not valid",
            FwpError::InvalidNetMask => "the network mask is not valid",
            FwpError::InvalidRange => "the range is not valid",
            FwpError::InvalidInterval => "the interval of time is not valid",
            FwpError::ZeroLengthArray => "a list that needs an element has none",
            FwpError::NullDisplayName => "the object has no display name",
            FwpError::InvalidActionType => "a filter cannot have that action",
            FwpError::InvalidWeight => "the weight of the filter is not valid",
            FwpError::MatchTypeMismatch => "the match type cannot compare those values",
            FwpError::TypeMismatch => "the value has the wrong type",
            FwpError::OutOfBounds => "a number is out of its bounds",
            FwpError::Reserved => "a reserved part is not zero",
            FwpError::DuplicateCondition => "the filter tests a field more often than it may",
            FwpError::DuplicateKeymod => "a keying module is named twice",
            FwpError::ActionIncompatibleWithLayer => "the layer cannot take that action",
            FwpError::ActionIncompatibleWithSublayer => "the sublayer cannot take that action",
            FwpError::ContextIncompatibleWithLayer => "the context is not one for that layer",
            FwpError::ContextIncompatibleWithCallout => "the context is not one for that callout",
            FwpError::IncompatibleAuthMethod => "the policy cannot use that authentication method",
            FwpError::IncompatibleDhGroup => "the policy cannot use that Diffie-Hellman group",
            FwpError::EmNotSupported => "an IKE policy cannot hold an extended mode policy",
            FwpError::NeverMatch => "the template can match no object",
            FwpError::ProviderContextMismatch => "the provider context has the wrong type",
            FwpError::InvalidParameter => "a parameter is not valid",
            FwpError::TooManySublayers => "no more sublayers can be added",
            FwpError::CalloutNotificationFailed => "the callout refused the notification",
            FwpError::InvalidAuthTransform => "the authentication transform is not valid",
            FwpError::InvalidCipherTransform => "the cipher transform is not valid",
            FwpError::IncompatibleCipherTransform => "the policy cannot use that cipher transform",
            FwpError::InvalidTransformCombination => "the transforms do not go together",
            FwpError::DuplicateAuthMethod => "an authentication method is named twice",
            FwpError::InvalidTunnelEndpoint => "an endpoint of the tunnel is not valid",
            FwpError::L2DriverNotReady => "the driver of the link layer is not ready",
            FwpError::KeyDictatorAlreadyRegistered => "another key dictator is registered",
            FwpError::KeyDictationInvalidKeyingMaterial => "the dictated keys are not valid",
            FwpError::ConnectionsDisabled => "connections are not being tracked",
            FwpError::InvalidDnsName => "the DNS name is not valid",
            FwpError::StillOn => "what should have been switched off is still on",
            FwpError::IkeextNotRunning => "the IKE service does not run",
            FwpError::DropNoicmp => "drop, and send no ICMP error",
        }
    }
}

impl fmt::Display for FwpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#010x}): {}", self.name(), self.code(), self.message())
    }
}

impl std::error::Error for FwpError {}

#[cfg(test)]
mod tests {
    use super::*;

    /// MS docs: WFP error codes.
    #[test]
    fn errors_have_the_public_names_and_codes() {
        for (error, name, code) in [
            (FwpError::CalloutNotFound, "FWP_E_CALLOUT_NOT_FOUND", 0x8032_0001),
            (FwpError::LifetimeMismatch, "FWP_E_LIFETIME_MISMATCH", 0x8032_0016),
            (FwpError::MatchTypeMismatch, "FWP_E_MATCH_TYPE_MISMATCH", 0x8032_0026),
            (FwpError::InvalidCipherTransform, "FWP_E_INVALID_CIPHER_TRANSFORM", 0x8032_0039),
        ] {
            assert_eq!((error.name(), error.code()), (name, code));
            assert_eq!(FwpError::from_code(code), Some(error));
        }
        assert_eq!(FwpError::from_code(0), None);
        let text = FwpError::InvalidRange.to_string();
        assert_eq!(text, "FWP_E_INVALID_RANGE (0x80320020): the range is not valid");
    }
}
