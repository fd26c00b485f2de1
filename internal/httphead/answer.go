package httphead

import (
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// ParseAnswer returns the answer of HTTP/1.1 whose first line and header these lines are, each
// of which ends in CR and LF. It has no body, and it is left to the caller what Connection and
// Content-Length mean. The values of its header are parts of lines.
//
// ParseAnswer returns nil for whatever is unusual, let alone wrong: that is to be left to
// [http.ReadResponse]. The two can differ only in what both accept.
func ParseAnswer(lines string) *http.Response {
	const version = "HTTP/1.1"
	first, header, _ := strings.Cut(lines, "\r\n")
	status, ok := strings.CutPrefix(first, version+" ")
	if !ok || !httpfield.IsValue(status) {
		return nil
	}
	code := codeOf(status)
	if code == 0 {
		return nil
	}
	n := strings.Count(header, "\r\n")
	res := &http.Response{
		Status: status, StatusCode: code, Proto: version, ProtoMajor: 1, ProtoMinor: 1,
		Header: make(http.Header, n), Body: http.NoBody,
	}
	values := make([]string, n)
	for i := range values {
		var line string
		line, header, _ = strings.Cut(header, "\r\n")
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpfield.IsToken(name) || !httpfield.IsValue(value) {
			return nil
		}
		switch name = textproto.CanonicalMIMEHeaderKey(name); name {
		case "Transfer-Encoding", "Trailer", "Pragma": // net/http makes Cache-Control of some Pragma
			return nil
		}
		if had := res.Header[name]; had != nil {
			res.Header[name] = append(had, value)
			continue
		}
		values[i] = value
		res.Header[name] = values[i : i+1 : i+1]
	}
	return res
}

// codeOf returns the number that a status begins with, from 100 to 999. It is 0 for any
// other status.
func codeOf(status string) int {
	if len(status) < 3 || len(status) > 3 && status[3] != ' ' || status[0] < '1' {
		return 0
	}
	code, err := strconv.ParseUint(status[:3], 10, 16)
	if err != nil {
		return 0
	}
	return int(code)
}
