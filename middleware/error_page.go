package middleware

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An errorPage is a page's text, cut where words stand for something else: each second
// element is such a word.
type errorPage []string

// errorPageName matches the names of files. Other answers than errors aren't the
// gateway's, and some of them must not have a body.
var errorPageName = regexp.MustCompile(`^[45]([0-9][0-9]|xx)\.(txt|json|html)$`)

func readErrorPage(fsys fs.FS, name string) (errorPage, error) {
	if !errorPageName.MatchString(name) {
		return nil, errors.New("want a name such as 502.html, 503.json, 4xx.txt or 5xx.html")
	}
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(text) {
		return nil, errors.New("it isn't UTF-8")
	}
	page, err := parseErrorPage(string(text))
	if err != nil {
		return nil, err
	}
	const sample = `"\` // is JSON only within a string, where it is escaped
	if path.Ext(name) == ".json" && !json.Valid([]byte(page.fill(escapeJSON, 502, sample))) {
		return nil, errors.New("it isn't JSON; {{text}}, {{hint}} and {{id}} must stand within strings")
	}
	return page, nil
}

func parseErrorPage(text string) (page errorPage, err error) {
	for {
		before, rest, found := strings.Cut(text, "{{")
		page = append(page, before)
		if !found {
			return page, nil
		}
		word, after, closed := strings.Cut(rest, "}}")
		switch {
		case !closed:
			return nil, errors.New("{{ has no }} behind it")
		case word != "status" && word != "text" && word != "hint" && word != "id":
			return nil, fmt.Errorf("{{%s}} is unknown; want {{status}}, {{text}}, {{hint}} or {{id}}", word)
		}
		page, text = append(page, word), after
	}
}

// mustErrorPage parses a page that is built in.
func mustErrorPage(text string) errorPage {
	page, err := parseErrorPage(text)
	if err != nil {
		panic(err)
	}
	return page
}

// fill returns the page for a status and a request's ID.
func (p errorPage) fill(escape func(string) string, status int, id string) string {
	var b strings.Builder
	for i, part := range p {
		if i%2 == 0 {
			b.WriteString(part)
			continue
		}
		switch part {
		case "status":
			b.WriteString(strconv.Itoa(status))
		case "text":
			b.WriteString(escape(statusText(status)))
		case "hint":
			b.WriteString(escape(hint(status)))
		case "id":
			b.WriteString(escape(id))
		}
	}
	return b.String()
}

// statusText returns the name of a status. nginx's 499 isn't one of HTTP's.
func statusText(status int) string {
	if status == 499 {
		return "Client Closed Request"
	}
	return http.StatusText(status)
}

// hint returns a sentence that tells people what they can do.
func hint(status int) string {
	switch status {
	case http.StatusBadGateway:
		return "The service failed to answer. Please try again."
	case http.StatusServiceUnavailable:
		return "The service is not available right now. Please try again in a moment."
	case http.StatusGatewayTimeout:
		return "The service took too long to answer. Please try again."
	case http.StatusRequestTimeout:
		return "The request took too long to arrive. Please try again."
	case http.StatusRequestEntityTooLarge:
		return "The request is larger than this service accepts."
	}
	if status < 500 {
		return "The service can't do anything with this request."
	}
	return "Something went wrong in the service."
}

// printable returns s without control characters.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// escapeJSON returns s as it stands within a string of JSON.
func escapeJSON(s string) string {
	quoted, _ := json.Marshal(s) // a string can't fail
	return string(quoted[1 : len(quoted)-1])
}

// escapeHTML returns s with everything escaped that may mean something in HTML.
func escapeHTML(s string) string {
	var b strings.Builder
	for _, r := range printable(s) {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune(" .,-_", r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, "&#%d;", r)
		}
	}
	return b.String()
}
