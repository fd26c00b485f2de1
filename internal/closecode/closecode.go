// Package closecode has the status codes of WebSocket close frames.
package closecode

import "unicode/utf8"

// The codes that Limpet sends or tells its callers (RFC 6455, section 7.4.1, and the
// registry of IANA).
const (
	Normal          = 1000
	GoingAway       = 1001
	ProtocolError   = 1002
	NoStatus        = 1005 // is never sent: it stands for a close frame without a code
	InvalidPayload  = 1007 // text that isn't UTF-8
	PolicyViolation = 1008
	MessageTooBig   = 1009
	InternalError   = 1011
	ServiceRestart  = 1012
	TryAgainLater   = 1013
)

// Sendable reports whether a code may be in a close frame that is sent. Those below
// 1000 and above 4999 aren't defined. Those from 1000 to 2999 are for the protocol
// and its extensions, so only the registered ones may be used; of these 1004 has no
// meaning, and 1005, 1006 and 1015 are for the use of programs and must not be sent
// (RFC 6455, sections 7.4.1 and 7.4.2).
func Sendable(code int) bool {
	switch {
	case code == 1004, code == NoStatus, code == 1006:
		return false
	case code < 3000:
		return Normal <= code && code <= 1014
	}
	return code <= 4999
}

// Reason returns as much of a reason, in whole characters, as fits into a close
// frame beside a code: 123 bytes (RFC 6455, section 5.5).
func Reason(reason string) string {
	const most = 123
	if len(reason) <= most {
		return reason
	}
	n := most
	for n > 0 && !utf8.RuneStart(reason[n]) {
		n--
	}
	return reason[:n]
}
