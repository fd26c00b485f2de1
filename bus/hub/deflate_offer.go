package hub

import (
	"slices"
	"strings"
)

// windowBits are the sizes of a window that an offer may name (RFC 7692, section 7.1.2).
var windowBits = []string{"8", "9", "10", "11", "12", "13", "14", "15"}

// answerOffers returns the answer to the first offer of permessage-deflate that the hub can
// meet, or "" if there is none: then the handshake succeeds without compression. lines are
// those of the client's Sec-WebSocket-Extensions.
func answerOffers(lines []string) string {
	for _, line := range lines {
		for offer := range strings.SplitSeq(line, ",") { // no value of a parameter has a comma in it (RFC 6455, section 9.1)
			if answer := answerOffer(offer); answer != "" {
				return answer
			}
		}
	}
	return ""
}

// answerOffer returns the answer to one offer, or "" if it is declined (RFC 7692, section 7.1).
// Neither side keeps its window from one message to the next, which a server may ask for
// whatever the client has offered. What the hub compresses may need a window of 15 bits, since
// compress/flate can't be told to use a smaller one.
func answerOffer(offer string) string {
	params := strings.Split(offer, ";")
	if strings.Trim(params[0], " \t") != "permessage-deflate" {
		return ""
	}
	answer := "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
	var seen []string
	for _, param := range params[1:] {
		name, value, valued := strings.Cut(param, "=")
		name, value = strings.Trim(name, " \t"), unquoted(strings.Trim(value, " \t"))
		if slices.Contains(seen, name) {
			return ""
		}
		seen = append(seen, name)
		met := false
		switch name {
		case "server_no_context_takeover", "client_no_context_takeover":
			met = !valued
		case "client_max_window_bits":
			met = !valued || slices.Contains(windowBits, value)
		case "server_max_window_bits":
			met = value == "15"
			answer += "; server_max_window_bits=15" // who asks for a bound has to be answered with one
		}
		if !met {
			return ""
		}
	}
	return answer
}

// unquoted returns a value without quotation marks around it.
func unquoted(value string) string {
	if len(value) > 1 && value[0] == '"' && value[len(value)-1] == '"' {
		return value[1 : len(value)-1]
	}
	return value
}
