package nats

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxToken is the length of a topic in a subject at most. A server refuses lines of more than
// 4096 bytes, and keeps all subjects in memory.
const maxToken = 200

// subject returns the subject of a topic, as the documentation of the package describes it.
func subject(prefix, topic string) string {
	if topic == "" {
		return prefix + "%"
	}
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteString(prefix)
	for i := range len(topic) {
		c := topic[i]
		if plain(c) || c == '.' && i > 0 && i < len(topic)-1 && topic[i-1] != '.' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', digits[c>>4], digits[c&15]})
	}
	if b.Len()-len(prefix) > maxToken {
		sum := sha256.Sum256([]byte(topic))
		return prefix + "%~" + hex.EncodeToString(sum[:])
	}
	return b.String()
}

// plain reports whether a subject has c as it is, wherever it stands.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-_$:/@+=", c) >= 0
}
