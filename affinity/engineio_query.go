package affinity

import (
	"net/url"
	"strings"
)

// An engineQuery has the query parameters of an Engine.IO request.
type engineQuery struct {
	version   string // EIO
	transport string
	sid       string
}

// parseEngineQuery reads the transport only of requests that have an EIO or a
// sid.
func parseEngineQuery(query string) (q engineQuery) {
	q.version, q.sid = queryParam(query, "EIO"), queryParam(query, "sid")
	if q.version != "" || q.sid != "" {
		q.transport = queryParam(query, "transport")
	}
	return q
}

// replaceSID returns query with the sid new wherever the sid was old. All other
// bytes stay as the client wrote them. So do those of the sid if new is a
// prefix of old, as it is when only a tag is removed.
func replaceSID(query, old, new string) string {
	var edited strings.Builder
	edited.Grow(len(query))
	for more := true; more; {
		var param string
		param, query, more = strings.Cut(query, "&")
		if name, value, _ := strings.Cut(param, "="); unescape(name) == "sid" && unescape(value) == old {
			edited.WriteString(name)
			edited.WriteByte('=')
			param = newValue(value, old, new)
		}
		edited.WriteString(param)
		if more {
			edited.WriteByte('&')
		}
	}
	return edited.String()
}

// newValue returns what stands in place of value, which is old as the client
// has escaped it.
func newValue(value, old, new string) string {
	if tag, ok := strings.CutPrefix(old, new); ok {
		if kept, ok := strings.CutSuffix(value, tag); ok {
			return kept
		}
	}
	return url.QueryEscape(new)
}
