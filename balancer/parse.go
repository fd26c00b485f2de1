package balancer

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

const (
	maxID         = 64
	maxSocketPath = 107 // sockaddr_un of Linux, with a zero at its end
)

// ParseBackend returns the backend that a flag or an environment variable describes:
// ID=URL, and behind it, each after a comma, weight=N and group=NAME (see
// [Backend.SetGroup]) if they are wanted, as in
// "a=http://10.0.0.1:3000,weight=2,group=canary".
//
// A weight of 0 is an error, since other proxies take it for a backend that keeps its
// clients and gets no new ones. That is a drain without a deadline here: Drain(id, 0) of
// [Pool], or a share of 0 for its group.
func ParseBackend(spec string) (*Backend, error) {
	id, rest, ok := strings.Cut(spec, "=")
	if !ok || strings.Contains(id, "/") { // a URL without ID, perhaps with a = of its own
		return nil, fmt.Errorf("balancer: backend%s: want ID=URL, ID=URL,weight=N or ID=URL,group=NAME, such as a=http://10.0.0.1:3000", quoted(spec))
	}
	rawURL, options, _ := strings.Cut(rest, ",")
	weight, group, err := parseOptions(id, options)
	if err != nil {
		return nil, err
	}
	b, err := NewBackend(id, rawURL, weight)
	if err != nil {
		return nil, err
	}
	if err := b.SetGroup(group); err != nil {
		return nil, err
	}
	return b, nil
}

// parseOptions reads what is behind the URL.
func parseOptions(id, options string) (weight int, group string, err error) {
	given := map[string]string{"weight": "", "group": ""}
	for options != "" {
		var option string
		option, options, _ = strings.Cut(options, ",")
		name, value, _ := strings.Cut(option, "=")
		switch old, known := given[name]; {
		case !known && strings.Contains(option, "://"):
			return 0, "", fmt.Errorf("balancer: backend %q: behind a comma follows another backend%s: write each by itself, and in a list put spaces between them, as in \"a=http://10.0.0.1:3000 b=http://10.0.0.2:3000\"", id, quoted(option))
		case !known:
			return 0, "", fmt.Errorf("balancer: backend %q: after the URL and a comma%s is no option: want weight=N or group=NAME", id, quoted(option))
		case old != "" || value == "":
			return 0, "", fmt.Errorf("balancer: backend %q: its %s is empty, or there twice: want weight=N and group=NAME, each once", id, name)
		}
		given[name] = value
	}
	group = given["group"]
	n := given["weight"]
	if n == "" {
		return 1, group, nil
	}
	weight, err = strconv.Atoi(n)
	switch {
	case err != nil:
		return 0, "", fmt.Errorf("balancer: backend %q: its weight%s: want a whole number of 1 to %d", id, quoted(n), MaxWeight)
	case weight == 0:
		return 0, "", fmt.Errorf("balancer: backend %q: its weight is 0: leave it out for 1; a backend that keeps its clients and gets no new ones is drained without a deadline, or in a group with a share of 0", id)
	}
	return weight, group, nil
}

// quoted returns s to be put into an error behind a word, or nothing if s may hold a
// password.
func quoted(s string) string {
	if strings.ContainsAny(s, "@?") {
		return ""
	}
	return fmt.Sprintf(" %q", s)
}

func validID(id string) bool {
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return 1 <= len(id) && len(id) <= maxID
}

// bareAddress matches what people write who forget the scheme.
var bareAddress = regexp.MustCompile(`^[A-Za-z0-9._-]+(:[0-9]+)?/?$|^\[[0-9A-Fa-f:.]+\](:[0-9]+)?/?$`)

// locate sets the backend's address. Its errors continue the words "its URL", say what to
// write, and repeat nothing that may be a password.
func (b *Backend) locate(rawURL string) error {
	u, err := url.Parse(rawURL)
	switch {
	case rawURL == "":
		return errors.New("is empty: want one such as http://10.0.0.1:3000")
	case bareAddress.MatchString(rawURL):
		return fmt.Errorf("%q has no scheme: write http://%[1]s, or https://%[1]s if it speaks TLS", strings.TrimSuffix(rawURL, "/"))
	case strings.HasPrefix(rawURL, "/"):
		return errors.New("has no scheme: write unix:///path for a Unix socket, http://host:port for a server")
	case err != nil:
		// The error of url.Parse repeats the URL.
		return errors.New("can't be read: want http://host:port, with a number as port, or an IPv6 address in brackets, as in http://[::1]:3000")
	case u.Scheme == "unix":
		return b.locateSocket(u)
	case u.Scheme == "ws", u.Scheme == "wss":
		return fmt.Errorf("has the scheme %s: write %s, which serves WebSockets too", u.Scheme, strings.Replace(u.Scheme, "ws", "http", 1))
	case u.Scheme != "http" && u.Scheme != "https":
		return errors.New("has no scheme that is known here: want http://host:port, https://host:port or unix:///path")
	}
	return b.locateServer(u)
}

func (b *Backend) locateSocket(u *url.URL) error {
	switch {
	case u.User != nil || u.Host != "" || u.Opaque != "" || len(u.Path) < 2:
		return errors.New("names no Unix socket: want unix:///path, with three slashes and an absolute path")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("has a query or a fragment behind the path of its socket: write %3F for a ? in the path, and %23 for a #")
	case len(u.Path) > maxSocketPath || strings.Contains(u.Path, "\x00"):
		return fmt.Errorf("has a path that no Unix socket can have: want %d bytes at most, and none of them zero", maxSocketPath)
	}
	b.url = &url.URL{Scheme: "unix", Path: u.Path}
	b.origin = &url.URL{Scheme: "http", Host: "localhost"}
	b.network, b.addr = "unix", u.Path
	return nil
}

func (b *Backend) locateServer(u *url.URL) error {
	plain := u.Scheme + "://" + u.Host
	if u.User != nil || strings.Contains(u.Path, "@") { // a password may have a slash
		plain = u.Scheme + "://host:port"
	}
	port := u.Port()
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case u.User != nil:
		return fmt.Errorf("has a user: write %s, and set the field Authorization in the gateway's Rewrite if the backend needs it", plain)
	case u.Hostname() == "":
		return errors.New("has no host: want one such as http://10.0.0.1:3000")
	case u.Path != "" && u.Path != "/":
		return fmt.Errorf("has a path: write %s, since requests keep the path that the client has asked for; the gateway's Rewrite can change it", plain)
	case u.RawQuery != "" || u.ForceQuery:
		return fmt.Errorf("has a query: write %s, since requests keep the query of the client; a weight stands behind a comma", plain)
	case u.Fragment != "":
		return fmt.Errorf("has a fragment: write %s", plain)
	case port == "" && u.Scheme == "https":
		port = "443"
	case port == "":
		port = "80"
	case err != nil || n == 0:
		return fmt.Errorf("has the port %s: want one of 1 to 65535", port)
	}
	b.url = &url.URL{Scheme: u.Scheme, Host: u.Host}
	b.origin = b.url
	b.network, b.addr = "tcp", net.JoinHostPort(u.Hostname(), port)
	return nil
}
