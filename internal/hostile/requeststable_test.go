package hostile_test

import (
	"strings"
	"testing"
)

// get and post are requests both as a client sends them and as a backend gets them.
func get(target string) string        { return "GET " + target + " HTTP/1.1\nHost: t\n\n" }
func with(fields string) string       { return "GET / HTTP/1.1\nHost: t\n" + fields + "\n" }
func post(fields, body string) string { return "POST / HTTP/1.1\nHost: t\n" + fields + "\n" + body }
func host(h string) string            { return "GET / HTTP/1.1\nHost: " + h + "\n\n" }

// What the backend gets of a request with a body, of known length and in chunks.
var (
	lengthed = post("Content-Length: 5\n", "hello")
	chunked  = post("Transfer-Encoding: chunked\n", "hello")
)

// verbatim are targets that arrive as they were written, or are refused: they mean
// something else to some backend than to whoever guards the way to it.
var verbatim = []string{
	"/", "/?", "/??", "//", "//a", "///a", "//a/b?c", "/a//b", "//t:x/a", "//u@t/a", "/\\a", "/a\\..\\b", "/.", "/..", "/../admin", "/a/../../b", "/./a",
	"/%2e%2e/admin", "/%2e%2e%2fadmin", "/..%2fadmin", "/a%2Fb%2fc", "/%61dmin", "//a|b%2f%2e%2e%2fc", "//a%2f%2fb", "/a;b=c", "/..;/admin", "/;/admin",
	`/a|b^c"d`, "/{a}<b>`c`", "/a%00b", "/%0d%0aX:%20y", "/%0aGET%20/x", "/a%20b", "/a+b", "/~a/%7ea", "/caf\xc3\xa9", "/\xff\xfe", "/\xe2\x80\xae",
	"/a#b", "/#", "/a?b#c", "/a?%zz", "/?a=b;c&d", "/?a|b^c\"d%2f", "/?\xff", "/?//x", "/?http://x/", "/http://x/", "/:80", "/*", "/a:b@c",
	"/" + strings.Repeat("a", 8000), "/?" + strings.Repeat("a|", 4000),
}

// noTargets are refused: no path that whoever guards the way to the backend could
// look at begins them, or they can't stand in a request line.
var noTargets = []string{
	"*", "?x", "#x", "x", "x/y", "t:80", "t", "x:y", "x:admin", "x:http://evil.test/admin/x", "x://t/a", "javascript:alert(1)", "mailto:a@b", "urn:a:b",
	"http:a", "http:/a", "http:///x", "http://", "http://?x", "https:///x", "http:\\\\t\\a", "http://u@t/a", "http://u:p@t/a", "http://@t/a",
	"ftp://t/a", "file:///a", "ws://t/a", "unix:/a", "http://t:x/a", "http://t:-1/a", "http://[::1/a", "http://t%zz/a", "http://t t/a", "http://t\\@u/a",
	"/a b", "/a\tb", "/a␍b", "/a␀b", "/a\x7fb", "/a\x01b", "/%", "/%z", "/%2", "", " /a", "/a HTTP/1.1 x",
}

var targets = []row{
	{"absolute", get("http://t/a?b"), get("/a?b"), "200 keep"},
	{"absolute, https", get("https://t/a"), get("/a"), "200 keep"},
	{"absolute, upper case", get("HTTP://t/A"), get("/A"), "200 keep | 400"},
	{"absolute, no path", get("http://t"), get("/"), "200 keep | 400"},
	{"absolute, query alone", get("http://t?a"), get("/?a"), "200 keep | 400"},
	{"absolute, another host", get("http://u/a"), "GET /a HTTP/1.1\nHost: u\n\n", "200 keep | 400"}, // RFC 9112 section 3.2.2: the field doesn't count
	{"absolute, a port", get("http://u:81/a"), "GET /a HTTP/1.1\nHost: u:81\n\n", "200 keep | 400"},
	{"absolute, escaped", get("http://t/a%2fb|c"), get("/a%2fb|c"), "200 keep | 400"},
	{"absolute, two slashes", get("http://t//a|b%2f%2e%2e%2fc"), get("//a|b%2f%2e%2e%2fc"), "200 keep | 400"},
	{"absolute, dots", get("http://t/../a"), get("/../a"), "200 keep | 400"},
	{"absolute, odd query", get("http://t/a?b|c%zz"), get("/a?b|c%zz"), "200 keep | 400"},
	{"absolute, fragment", get("http://t/a#b"), get("/a#b"), "200 keep | 400"},
	{"OPTIONS *", "OPTIONS * HTTP/1.1\nHost: t\n\n", "OPTIONS * HTTP/1.1\nHost: t\n\n", "200 keep"},
	{"POST *", "POST * HTTP/1.1\nHost: t\nContent-Length: 0\n\n", "", "400"},
	{"OPTIONS *x", "OPTIONS *x HTTP/1.1\nHost: t\n\n", "", "400"},
	{"OPTIONS x:y", "OPTIONS x:y HTTP/1.1\nHost: t\n\n", "", "400"},
	{"handshake to x:y", "GET x:y HTTP/1.1\nHost: t\n" + websocket + "\n", "", "400"},
	{"handshake to two slashes", "GET //a%2fb| HTTP/1.1\nHost: t\n" + websocket + "\n", "GET //a%2fb| HTTP/1.1\nHost: t\n" + websocket + "\n", "101 tunnel | 400"},
	{"longer than a header may be", get("/" + strings.Repeat("a", 1100<<10)), "", "431 close | 414 close | 400 close"},
}

func allTargets() []row {
	rows := targets
	for _, target := range verbatim {
		rows = append(rows, row{"as written " + target[:min(len(target), 24)], get(target), get(target), "200 keep | 400"})
	}
	for _, target := range noTargets {
		rows = append(rows, row{"refused " + target, get(target), "", "400"})
	}
	return rows
}

var hosts = []row{
	{"missing", "GET / HTTP/1.1\n\n", "", "400 close"},
	{"missing, absolute target", "GET http://t/ HTTP/1.1\n\n", "", "400 close"},
	{"missing in HTTP/1.0", "GET / HTTP/1.0\n\n", "GET / HTTP/1.1\nHost: {backend}\nForwarded: for=127.0.0.1;proto=http\nX-Forwarded-Host: \n\n", "200 close | 400 close"},
	{"empty", host(""), "GET / HTTP/1.1\nHost: {backend}\nForwarded: for=127.0.0.1;proto=http\nX-Forwarded-Host: \n\n", "200 keep | 400"},
	{"two", with("Host: u\n"), "", "400 close"},
	{"two that are equal", with("Host: t\n"), "", "400 close"},
	{"two, one folded", with("host: u\n"), "", "400 close"},
	{"a space before the colon", "GET / HTTP/1.1\nHost : t\n\n", "", "400 close"},
	{"a space before the name", "GET / HTTP/1.1\n Host: t\n\n", "", "400 close"},
	{"named by Connection", with("Connection: Host\n"), with(""), "200 keep"},
	{"of an absolute target, bad", "GET http://t/ HTTP/1.1\nHost: a b\n\n", "", "400 close"},
	{"lower case", "GET / HTTP/1.1\nhost: t\n\n", with(""), "200 keep"},
	{"IPv6", host("[::1]:80"), host("[::1]:80"), "200 keep"},
	{"a port", host("t:65535"), host("t:65535"), "200 keep"},
	{"a comma", host("t,u"), host("t,u"), "200 keep | 400"}, // RFC 3986 section 3.2.2: a name may have one
	{"a colon and no port", host("t:"), host("t:"), "200 keep | 400"},
	{"spaces around", host("  t\t"), host("t"), "200 keep"},
}

// badHosts are no authority of RFC 3986 without userinfo.
var badHosts = []string{
	"t:x", "t:-1", "t:1:2", ":80x", "[::1", "::1]", "[::1]x", "[::1]:x", "t%zz", "u@t", "u:p@t", "@t", "t/a", "/t", "t\\a", "t?x", "t#x", "t t", "t\tx",
	"t\"x", "<t>", "t␀", "t\x7f", "http://t", "t\xc3\xa9", "t|u", "t^u",
}

func allHosts() []row {
	rows := hosts
	for _, h := range badHosts {
		rows = append(rows, row{"refused " + h, host(h), "", "400"})
	}
	return rows
}

// next is a request that must not come out of another one's body.
const next = "GET /smuggled HTTP/1.1\nHost: t\n\n"

// framing: what could be read as one request or as two. Behind a message whose end
// isn't sure the connection ends.
var framing = []row{
	{"a length", lengthed, lengthed, "200 keep"},
	{"chunks", post("Transfer-Encoding: chunked\n", "5\nhello\n0\n\n"), chunked, "200 keep"},
	{"chunks, upper case", post("TRANSFER-ENCODING: CHUNKED\n", "5\nhello\n0\n\n"), chunked, "200 keep"},
	// RFC 9112 section 6.1 wants the connection closed behind both of them. net/http
	// takes the length off before a handler can see it, and keeps the connection. The
	// chunks count, so that what follows them is a request for all.
	{"CL.TE", post("Content-Length: 6\nTransfer-Encoding: chunked\n", "0\n\nG\n\n"), post("Transfer-Encoding: chunked\n", ""), "200 400 close | 200 close | 400 close"},
	{"TE.CL", post("Transfer-Encoding: chunked\nContent-Length: 4\n", "5\nhello\n0\n\n"), chunked, "200 keep | 200 close | 400 close"},
	{"CL.TE, a request within", post("Content-Length: 0\nTransfer-Encoding: chunked\n", "23\n"+next+"\n0\n\n"), post("Transfer-Encoding: chunked\n", wire(next)), "200 keep | 200 close | 400 close"},
	{"TE, TE", post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE, TE identity", post("Transfer-Encoding: chunked\nTransfer-Encoding: identity\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE identity", post("Transfer-Encoding: identity\nContent-Length: 5\n", "hello"), "", "400 close | 501 close"},
	{"TE xchunked", post("Transfer-Encoding: xchunked\nContent-Length: 5\n", "hello"), "", "400 close | 501 close"},
	{"TE chunked, chunked", post("Transfer-Encoding: chunked, chunked\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE gzip, chunked", post("Transfer-Encoding: gzip, chunked\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE chunked, identity", post("Transfer-Encoding: chunked, identity\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE chunked;q=1", post("Transfer-Encoding: chunked;q=1\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE quoted", post("Transfer-Encoding: \"chunked\"\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE empty", post("Transfer-Encoding:\nContent-Length: 5\n", "hello"), "", "400 close | 501 close"},
	{"TE with a comma", post("Transfer-Encoding: ,chunked\n", "0\n\n"), "", "400 close | 501 close"},
	{"TE behind a vertical tab", post("Transfer-Encoding: \x0bchunked\nContent-Length: 5\n", "hello"), "", "400 close | 501 close"},
	{"TE behind a tab", post("Transfer-Encoding:\tchunked\n", "0\n\n"), post("Transfer-Encoding: chunked\n", ""), "200 keep | 400 close"},
	{"TE and a space before the colon", post("Transfer-Encoding : chunked\nContent-Length: 5\n", "hello"), "", "400 close"},
	{"TE folded", post("Transfer-Encoding:\n chunked\n", "5\nhello\n0\n\n"), chunked, "200 keep | 400 close | 501 close"},
	{"TE behind a lone CR", post("X: y␍Transfer-Encoding: chunked\nContent-Length: 5\n", "hello"), "", "400 close"},
	{"TE behind a lone LF", post("X: y␊Transfer-Encoding: chunked\n", "5\nhello\n0\n\n"), post("Transfer-Encoding: chunked\nX: y\n", "hello"), "200 keep | 400 close"}, // RFC 9112 section 2.2 allows it
	{"TE with NUL", post("Transfer-Encoding: chunked␀\nContent-Length: 5\n", "hello"), "", "400 close | 501 close"},
	{"TE by its underscore", post("Transfer_Encoding: chunked\nContent-Length: 5\n", "hello"), post("Content-Length: 5\nTransfer_encoding: chunked\n", "hello"), "200 keep | 400"},
	{"TE named by Connection", post("Connection: Transfer-Encoding\nTransfer-Encoding: chunked\n", "5\nhello\n0\n\n"), chunked, "200 keep | 400"},
	{"TE of a GET", with("Transfer-Encoding: chunked\n") + "5\nhello\n0\n\n", with("Transfer-Encoding: chunked\n") + "hello", "200 keep | 400 close"},
	{"TE of a HEAD", "HEAD / HTTP/1.1\nHost: t\nTransfer-Encoding: chunked\n\n0\n\n", "HEAD / HTTP/1.1\nHost: t\nTransfer-Encoding: chunked\n\n", "200 keep | 400 close"},
	{"TE of a TRACE", "TRACE / HTTP/1.1\nHost: t\nTransfer-Encoding: chunked\n\n0\n\n", "TRACE / HTTP/1.1\nHost: t\nTransfer-Encoding: chunked\n\n", "200 keep | 400 close | 405 | 501"},
	// To HTTP/1.0 a transfer coding is unknown. net/http ignores it, as RFC 9112 section
	// 6.1 forbids, and a handler doesn't see it; so what follows must at least not
	// be taken for requests on a connection that is kept.
	{"TE in HTTP/1.0", "POST / HTTP/1.0\nHost: t\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n", post("Content-Length: 0\n", ""), "200 close | 400 close"},
	{"TE in HTTP/1.0, kept", "POST / HTTP/1.0\nHost: t\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n23\n" + next + "\n0\n\n", post("Content-Length: 0\n", ""), "200 close | 200 400 close | 400 close"},
	{"CL and TE in HTTP/1.0", "POST / HTTP/1.0\nHost: t\nContent-Length: 5\nTransfer-Encoding: chunked\n\nhello", lengthed, "200 close | 400 close"},

	{"CL twice, equal", post("Content-Length: 5\nContent-Length: 5\n", "hello"), lengthed, "200 keep | 400 close"},
	{"CL twice, different", post("Content-Length: 5\nContent-Length: 6\n", "hello!"), "", "400 close"},
	{"CL twice, 0 first", post("Content-Length: 0\nContent-Length: 35\n", next), "", "400 close"},
	{"CL a list, equal", post("Content-Length: 5, 5\n", "hello"), lengthed, "200 keep | 400 close"},
	{"CL a list, different", post("Content-Length: 5, 6\n", "hello!"), "", "400 close"},
	{"CL +5", post("Content-Length: +5\n", "hello"), "", "400 close"},
	{"CL -5", post("Content-Length: -5\n", "hello"), "", "400 close"},
	{"CL -0", post("Content-Length: -0\n", ""), "", "400 close"},
	{"CL 0x5", post("Content-Length: 0x5\n", "hello"), "", "400 close"},
	{"CL 5 5", post("Content-Length: 5 5\n", "hello"), "", "400 close"},
	{"CL 5.0", post("Content-Length: 5.0\n", "hello"), "", "400 close"},
	{"CL 5e0", post("Content-Length: 5e0\n", "hello"), "", "400 close"},
	{"CL 5_0", post("Content-Length: 5_0\n", "hello"), "", "400 close"},
	{"CL 5;", post("Content-Length: 5;\n", "hello"), "", "400 close"},
	{"CL quoted", post("Content-Length: \"5\"\n", "hello"), "", "400 close"},
	{"CL empty", post("Content-Length:\n", "hello"), "", "400 close"},
	{"CL of wide digits", post("Content-Length: \xef\xbc\x95\n", "hello"), "", "400 close"},
	{"CL 05", post("Content-Length: 05\n", "hello"), lengthed, "200 keep | 400 close"}, // digits all the same
	{"CL too large", post("Content-Length: 18446744073709551621\n", "hello"), "", "400 close"},
	{"CL 2^63", post("Content-Length: 9223372036854775808\n", "hello"), "", "400 close"},
	{"CL folded", post("Content-Length: 5\n 0\n", "hello"), "", "400 close"},
	{"CL and a space before the colon", post("Content-Length : 5\n", "hello"), "", "400 close"},
	{"CL by its underscore", post("Content_Length: 5\n", ""), post("Content-Length: 0\nContent_length: 5\n", ""), "200 keep | 400"},
	{"CL named by Connection", post("Connection: Content-Length\nContent-Length: 5\n", "hello"), lengthed, "200 keep | 400"},
	{"CL of a GET", with("Content-Length: 5\n") + "hello", with("Content-Length: 5\n") + "hello", "200 keep | 400 close"},
	{"CL of a GET, a request within", with("Content-Length: 35\n") + next, with("Content-Length: 35\n") + wire(next), "200 keep | 400 close"},
	{"CL shorter than the body", post("Content-Length: 3\n", "hello\n\n"), post("Content-Length: 3\n", "hel"), "200 400 close"},
	{"CL longer than the body", post("Content-Length: 9\n", "hello␄"), post("Content-Length: 9\n", "hello") + "…", "400 close | 499 close | 502 close | close"},
	{"CL longer, and gone", post("Content-Length: 9\n", "hello✂"), post("Content-Length: 9\n", "hello") + "…", ""},

	{"chunk extensions", post("Transfer-Encoding: chunked\n", "5;a=b;c=\"d\"\nhello\n0;e\n\n"), chunked, "200 keep | 400 close"},
	{"a chunk extension with LF", post("Transfer-Encoding: chunked\n", "5;␊hello\n0\n\n"), broken, "400 close"},
	{"a chunk extension with CR", post("Transfer-Encoding: chunked\n", "5;a␍b\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk extension that is long", post("Transfer-Encoding: chunked\n", "5;"+strings.Repeat("a", 5000)+"\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size too large", post("Transfer-Encoding: chunked\n", "10000000000000005\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size negative", post("Transfer-Encoding: chunked\n", "-5\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size +5", post("Transfer-Encoding: chunked\n", "+5\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size 0x5", post("Transfer-Encoding: chunked\n", "0x5\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size 5_0", post("Transfer-Encoding: chunked\n", "5_0\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size empty", post("Transfer-Encoding: chunked\n", "\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size ;", post("Transfer-Encoding: chunked\n", ";\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size g", post("Transfer-Encoding: chunked\n", "g\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size behind a space", post("Transfer-Encoding: chunked\n", " 5\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's size before a space", post("Transfer-Encoding: chunked\n", "5 \nhello\n0\n\n"), chunked, "200 keep | 400 close"},
	{"a chunk's size 005", post("Transfer-Encoding: chunked\n", "005\nhello\n000\n\n"), chunked, "200 keep | 400 close"},
	{"a chunk's size before NUL", post("Transfer-Encoding: chunked\n", "5␀\nhello\n0\n\n"), broken, "400 close"},
	{"a chunk's line with LF", post("Transfer-Encoding: chunked\n", "5␊hello\n0\n\n"), broken, "400 close"},
	{"a chunk's line with CR", post("Transfer-Encoding: chunked\n", "5␍hello\n0\n\n"), broken, "400 close"},
	{"a chunk's end with LF", post("Transfer-Encoding: chunked\n", "5\nhello␊0\n\n"), chunked + "…", "400 close"},
	{"a chunk's end missing", post("Transfer-Encoding: chunked\n", "5\nhello0\n\n"), chunked + "…", "400 close"},
	{"a chunk longer than its size", post("Transfer-Encoding: chunked\n", "3\nhello\n0\n\n"), post("Transfer-Encoding: chunked\n", "hel") + "…", "400 close"},
	{"a chunk shorter than its size", post("Transfer-Encoding: chunked\n", "7\nhello\n0\n\n␄"), post("Transfer-Encoding: chunked\n", wire("hello\n")) + "…", "400 close | 499 close | 502 close"},
	{"the last chunk missing", post("Transfer-Encoding: chunked\n", "5\nhello\n␄"), chunked + "…", "400 close | 499 close | 502 close | close"},
	{"the last CR LF missing", post("Transfer-Encoding: chunked\n", "5\nhello\n0\n␄"), chunked + "…", "400 close | 499 close | 502 close | close"},
	{"the last chunk ends in LF", post("Transfer-Encoding: chunked\n", "5\nhello\n0␊␊"), chunked + "…", "400 close"},
	{"the last chunk, and gone", post("Transfer-Encoding: chunked\n", "5\nhello\n✂"), chunked + "…", ""},
	{"behind chunks something", post("Transfer-Encoding: chunked\n", "5\nhello\n0\n\nx\n\n"), chunked, "200 400 close"},
	{"chunks that carry next to nothing", post("Transfer-Encoding: chunked\n", strings.Repeat("1;"+strings.Repeat("a", 100)+"\nx\n", 1000)+"0\n\n"), post("Transfer-Encoding: chunked\n", strings.Repeat("x", 1000)) + "…", "400 close"},
}

// broken may arrive as long as it has no end.
var broken = post("Transfer-Encoding: chunked\n", "") + "…"

// forged are fields by which a stranger says who he is. None of them arrives.
var forged = []string{
	"X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1", "X-Forwarded-Server: evil", "X-Forwarded-Prefix: /evil",
	"X-Real-IP: 6.6.6.6", "Forwarded: for=6.6.6.6", "x-forwarded-for: 6.6.6.6", "X_Forwarded_For: 6.6.6.6", "X-Forwarded_For: 6.6.6.6", "X_REAL_IP: 6.6.6.6", "X_Forwarded_Host: evil",
	"X-Forwarded-For: 6.6.6.6\nX-Forwarded-For: 127.0.0.1",
}

// badFields are no field lines, and refused.
var badFields = []string{
	"A : b", "A\t: b", " A: b", "\tA: b", ": b", "A", "A b: c", "A(: b", "A@: b", "A\"b: c", "A/b: c", "\xc3\xa4: b", "A␀: b", "A: b␀c", "A: b␍c", "A␍: b", "A: b\x01",
	"A: b\x7f", "A:b␍␍", "␍A: b", "A,b: c", "A;b: c", "A[]: b", "A{}: b", "A\\b: c",
}

var fields = []row{
	{"an obs-fold", with("A: b\n c\n"), with("A: b c\n"), "200 keep | 400 close"}, // RFC 9112 section 5.2: 400, or spaces instead
	{"an obs-fold before all", "GET / HTTP/1.1\n A: b\nHost: t\n\n", "", "400 close"},
	{"LF ends a line", "GET / HTTP/1.1␊Host: t␊A: b␊␊", with("A: b\n"), "200 keep | 400 close"},
	{"a line of LF and one of CR LF", "GET / HTTP/1.1\nHost: t\n␊" + next, with("") + "¶" + get("/smuggled"), "200 200 keep | 400 close"},
	{"empty lines before", "\n\nGET / HTTP/1.1\nHost: t\n\n", "", "400 close | 200 keep"},
	{"bytes that aren't ASCII", with("A: \xff\xfe\n"), with("A: \xff\xfe\n"), "200 keep | 400 close"},
	{"empty", with("A:\n"), with("A: \n"), "200 keep"},
	{"many", with(strings.Repeat("A: b\n", 5000)), with(strings.Repeat("A: b\n", 5000)), "200 keep | 431 close | 400 close"},
	{"very many", with(strings.Repeat("A: b\n", 190_000)), "", "431 close | 400 close"},
	{"long", with("A: " + strings.Repeat("b", 100_000) + "\n"), with("A: " + strings.Repeat("b", 100_000) + "\n"), "200 keep | 431 close | 400 close"},
	{"very long", with("A: " + strings.Repeat("b", 1100<<10) + "\n"), "", "431 close | 400 close"},
	{"a very long name", with(strings.Repeat("A", 1100<<10) + ": b\n"), "", "431 close | 400 close"},
	{"no end", "GET / HTTP/1.1\nHost: t\nA: b␄", "", "400 close | close"},
	{"no end, and gone", "GET / HTTP/1.1\nHost: t\nA: b✂", "", ""},
	{"User-Agent twice", with("User-Agent: a\nUser-Agent: b\n"), with("User-Agent: a\n"), "200 keep"},
	{"letters of any case", with("aCCept: b\n"), with("Accept: b\n"), "200 keep"},

	{"Connection names the client's address", with("Connection: X-Forwarded-For, X-Real-IP, Forwarded\n"), with(""), "200 keep"},
	{"Connection names Cookie", with("Connection: Cookie\nCookie: a=b\n"), with(""), "200 keep"},
	{"Connection names Authorization", with("Connection: close, Authorization\nAuthorization: b\n"), with(""), "200 close"},
	{"Connection names X-Forwarded-Host", with("Connection: X-Forwarded-Host, X-Forwarded-Proto\n"), with(""), "200 keep"},
	{"Connection names itself", with("Connection: Connection, close\n"), with(""), "200 close"},
	{"Connection is nonsense", with("Connection: , ,;=, \"a\nA: b\n"), with("A: b\n"), "200 keep"},
	{"Connection over two lines", with("Connection: a\nConnection: b\nA: 1\nB: 1\nC: 1\n"), with("C: 1\n"), "200 keep"},
	{"hop by hop", with("Keep-Alive: a\nProxy-Connection: a\nProxy-Authorization: a\nProxy-Authenticate: a\nUpgrade: a\nTE: gzip\nTrailer: a\n"), with(""), "200 keep"},
	{"TE trailers", with("TE: trailers\nConnection: TE\n"), with("Te: trailers\n"), "200 keep"},
	{"TE of many", with("TE: gzip;q=1, Trailers\n"), with("Te: trailers\n"), "200 keep"},
	{"TE with a weight, which trailers has none", with("TE: trailers;q=0.5\n"), with(""), "200 keep"},
	{"TE xtrailers", with("TE: xtrailers;q=0\n"), with(""), "200 keep"},
	{"HTTP2-Settings", with("Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n"), with(""), "200 keep"},
	{"Max-Forwards", "TRACE / HTTP/1.1\nHost: t\nMax-Forwards: 0\n\n", "TRACE / HTTP/1.1\nHost: t\nMax-Forwards: 0\n\n", "200 keep | 405 | 501"},

	{"a forged cookie", with("Cookie: limpet=AAAA; a=b\n"), with("Cookie: a=b\n"), "200 keep"},
	{"a forged cookie alone", with("Cookie: limpet=" + strings.Repeat("A", 200) + "\n"), with(""), "200 keep"},
	{"a forged cookie by its other name", with("Cookie: a=b; __Host-limpet=\"x\"\n"), with("Cookie: a=b\n"), "200 keep"},
	{"many forged cookies", with("Cookie: " + strings.Repeat("limpet=AAAA; ", 500) + "a=b\n"), with("Cookie: a=b\n"), "200 keep"},
	{"forged cookies over two lines", with("Cookie: limpet=x\nCookie: limpet=y; a=b\n"), with("Cookie: a=b\n"), "200 keep"},
	{"a cookie that is nonsense", with("Cookie: =; ;;limpet; limpet==;\x80\n"), with("Cookie: =; ;;limpet;\x80\n"), "200 keep"},
	{"a forged sid", get("/socket.io/?EIO=4&transport=polling&sid=abc.AAAAAAAAAAAAAAAAAAAAAAAAA"), get("/socket.io/?EIO=4&transport=polling&sid=abc.AAAAAAAAAAAAAAAAAAAAAAAAA"), "200 keep | 400"},
	{"a sid that is escaped", get("/socket.io/?EIO=4&transport=polling&sid=%00%0d%0a.%41"), get("/socket.io/?EIO=4&transport=polling&sid=%00%0d%0a.%41"), "200 keep | 400"},
	{"a sid twice", get("/socket.io/?EIO=4&sid=a&sid=b.AAAA&transport=polling"), get("/socket.io/?EIO=4&sid=a&sid=b.AAAA&transport=polling"), "200 keep | 400"},
	{"a sid of great length", get("/?EIO=4&transport=polling&sid=" + strings.Repeat("a", 5000)), get("/?EIO=4&transport=polling&sid=" + strings.Repeat("a", 5000)), "200 keep | 400"},
}

func allFields() []row {
	rows := fields
	for _, f := range forged {
		rows = append(rows, row{"forged " + f, with(f + "\n"), with(""), "200 keep"})
	}
	for _, f := range badFields {
		rows = append(rows, row{"refused " + f, with(f + "\n"), "", "400 close"})
	}
	return rows
}

// Trailers, announced or not: RFC 9110 section 6.5.1.
var trailers = []row{
	{"announced", post("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum: 1\n\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n"), "200 keep"},
	{"announced and missing", post("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\n\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello"), "200 keep"},
	{"unannounced", post("Transfer-Encoding: chunked\n", "5\nhello\n0\nSum: 1\n\n"), chunked, "200 keep"},
	{"Trailer: Content-Length", post("Trailer: Content-Length\nTransfer-Encoding: chunked\n", "5\nhello\n0\nContent-Length: 1\n\n"), "", "400 close"},
	{"Trailer: Transfer-Encoding", post("Trailer: Sum, transfer-encoding\nTransfer-Encoding: chunked\n", "5\nhello\n0\n\n"), "", "400 close"},
	{"no field line", post("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum\n\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello") + "…", "400 close"},
	{"a space before the colon", post("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum : 1\n\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello") + "…", "400 close"},
	{"NUL", post("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum: a␀b\n\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello") + "…", "400 close | 502 close"},
	{"very long", post("Trailer: Sum\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum: "+strings.Repeat("a", 1<<20)+"\n\n"), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello") + "…", "400 close | 431 close"},
	{"without chunks", post("Content-Length: 5\nTrailer: Sum\n", "hello"), lengthed, "200 keep"},
}

// noTrailers don't pass as a trailer: to a backend that merges trailers with the
// fields they would say what the gateway says there, or takes off.
var noTrailers = []string{
	"X-Forwarded-For", "X-Forwarded-Proto", "X_Forwarded_For", "X-Real-IP", "Forwarded", "Host", "Cookie", "Authorization", "Connection", "Upgrade", "Te", "Proxy-Authorization", "Expect",
}

func allTrailers() []row {
	rows := trailers
	for _, name := range noTrailers {
		send := post("Trailer: Sum, "+name+"\nTransfer-Encoding: chunked\n", "5\nhello\n0\nSum: 1\n"+name+": 6.6.6.6\n\n")
		rows = append(rows,
			row{"announced " + name, send, post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n"), "200 keep | 400"},
			row{"unannounced " + name, strings.Replace(send, ", "+name, "", 1), post("Trailer: Sum\nTransfer-Encoding: chunked\n", "hello\nSum: 1\n"), "200 keep | 400"})
	}
	return rows
}

const websocket = "Connection: Upgrade\nSec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\nUpgrade: websocket\n"

var methods = []row{
	{"CONNECT", "CONNECT t:80 HTTP/1.1\nHost: t:80\n\n", "", "501 | 405 | 400"},
	{"CONNECT to a path", "CONNECT / HTTP/1.1\nHost: t\n\n", "", "501 | 405 | 400"},
	{"CONNECT with a body", "CONNECT t:80 HTTP/1.1\nHost: t\nContent-Length: 35\n\n" + next, "", "501 | 405 | 400 | 501 close | 405 close | 400 close"},
	{"CONNECT and a request behind", "CONNECT t:80 HTTP/1.1\nHost: t\n\n" + next, get("/smuggled"), "501 200 keep | 405 200 keep | 501 close | 405 close | 400 close"},
	{"TRACE", "TRACE / HTTP/1.1\nHost: t\n\n", "TRACE / HTTP/1.1\nHost: t\n\n", "200 keep | 405 | 501"},
	{"lower case", "get / HTTP/1.1\nHost: t\n\n", "get / HTTP/1.1\nHost: t\n\n", "200 keep | 400 | 501"},
	{"odd", "!#$%&'*+-.^_`|~ / HTTP/1.1\nHost: t\n\n", "!#$%&'*+-.^_`|~ / HTTP/1.1\nHost: t\n\n", "200 keep | 400 | 501"},
	{"long", strings.Repeat("A", 5000) + " / HTTP/1.1\nHost: t\n\n", strings.Repeat("A", 5000) + " / HTTP/1.1\nHost: t\n\n", "200 keep | 400 | 501"},
	{"PRI", "PRI / HTTP/1.1\nHost: t\n\n", "PRI / HTTP/1.1\nHost: t\n\n", "200 keep | 400 | 501"},
	{"no token", "G(T / HTTP/1.1\nHost: t\n\n", "", "400 close"},
	{"not ASCII", "G\xc3\x89T / HTTP/1.1\nHost: t\n\n", "", "400 close"},
	{"NUL", "G␀T / HTTP/1.1\nHost: t\n\n", "", "400 close"},
	{"a tab behind", "GET\t/ HTTP/1.1\nHost: t\n\n", "", "400 close"},
	{"a space before", " GET / HTTP/1.1\nHost: t\n\n", "", "400 close"},
	{"two spaces behind", "GET  / HTTP/1.1\nHost: t\n\n", "", "400 close"},
	{"HEAD", "HEAD / HTTP/1.1\nHost: t\n\n", "HEAD / HTTP/1.1\nHost: t\n\n", "200 keep"},
	{"a method to override", post("Content-Length: 0\nX-Http-Method-Override: DELETE\n", ""), post("Content-Length: 0\nX-Http-Method-Override: DELETE\n", ""), "200 keep"},
	{"none", "/ HTTP/1.1\nHost: t\n\n", "", "400 close"},

	{"HTTP/0.9", "GET /\n", "", "400 close"},
	{"HTTP/0.9 by name", "GET / HTTP/0.9\nHost: t\n\n", "", "400 close | 505 close"},
	{"HTTP/1.0", "GET / HTTP/1.0\nHost: t\n\n", with(""), "200 close"},
	{"HTTP/1.0, kept", "GET / HTTP/1.0\nHost: t\nConnection: keep-alive\n\n", with(""), "200 keep | 200 close"},
	{"HTTP/1.2", "GET / HTTP/1.2\nHost: t\n\n", with(""), "200 keep | 400 close | 505 close"},
	{"HTTP/1.9", "GET / HTTP/1.9\nHost: t\n\n", with(""), "200 keep | 400 close | 505 close"},
	{"HTTP/1.10", "GET / HTTP/1.10\nHost: t\n\n", "", "400 close"},
	{"HTTP/01.1", "GET / HTTP/01.1\nHost: t\n\n", "", "400 close"},
	{"HTTP/2.0", "GET / HTTP/2.0\nHost: t\n\n", "", "400 close | 505 close"},
	{"HTTP/3.0", "GET / HTTP/3.0\nHost: t\n\n", "", "400 close | 505 close"},
	{"the preface of HTTP/2", "PRI * HTTP/2.0\n\nSM\n\n", "", "400 close | 505 close"},
	{"http/1.1", "GET / http/1.1\nHost: t\n\n", "", "400 close"},
	{"HTTP/1", "GET / HTTP/1\nHost: t\n\n", "", "400 close"},
	{"HTTP/1.1 and a space", "GET / HTTP/1.1 \nHost: t\n\n", "", "400 close"},
	{"HTTP/+1.1", "GET / HTTP/+1.1\nHost: t\n\n", "", "400 close"},
	{"HTTPS/1.1", "GET / HTTPS/1.1\nHost: t\n\n", "", "400 close"},
	{"ICY/1.1", "GET / ICY/1.1\nHost: t\n\n", "", "400 close"},
	{"a TLS hello", "\x16\x03\x01\x00\x05hello\n\n", "", "400 close"},
	{"nothing", "␄", "", "close | 400 close"},
	{"an answer", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "", "400 close"},
}

// Expect, more than one request at once, and clients that leave.
var manners = []row{
	{"Expect, the body at once", post("Content-Length: 5\nExpect: 100-continue\n", "hello"), post("Content-Length: 5\nExpect: 100-continue\n", "hello"), "100 200 keep | 200 keep | 100 200 close | 200 close"},
	{"Expect, the body when asked", post("Content-Length: 5\nExpect: 100-continue\n", "␆hello"), post("Content-Length: 5\nExpect: 100-continue\n", "hello"), "100 200"},
	{"Expect, chunks", post("Expect: 100-Continue\nTransfer-Encoding: chunked\n", "␆5\nhello\n0\n\n"), post("Expect: 100-Continue\nTransfer-Encoding: chunked\n", "hello"), "100 200"},
	{"Expect, no body", with("Expect: 100-continue\n"), with("Expect: 100-continue\n"), "200 | 100 200 | 200 close"},
	{"Expect in HTTP/1.0", "POST / HTTP/1.0\nHost: t\nContent-Length: 5\nExpect: 100-continue\n\nhello", lengthed + "‖" + post("Content-Length: 5\nExpect: 100-continue\n", "hello"), "200 close"}, // RFC 9110 section 10.1.1: no 100 for the client,
	{"Expect: 999", post("Content-Length: 5\nExpect: 999\n", "hello"), "", "417 close | 400 close"},
	{"Expect: 100-continue, 999", post("Content-Length: 5\nExpect: 100-continue, 999\n", "hello"), post("Content-Length: 5\nExpect: 100-continue, 999\n", "hello"), "417 close | 400 close | 417 | 400 | 100 200 | 200"},
	{"Expect and a body that breaks", post("Expect: 100-continue\nTransfer-Encoding: chunked\n", "␆g\n"), post("Expect: 100-continue\nTransfer-Encoding: chunked\n", "") + "…", "100 400 close"},
	{"Expect, and gone", post("Content-Length: 5\nExpect: 100-continue\n", "✂"), post("Content-Length: 5\nExpect: 100-continue\n", "") + "…", ""},

	{"two at once", get("/1") + get("/2"), get("/1") + "¶" + get("/2"), "200 200 keep"},
	{"ten at once", strings.Repeat(get("/1"), 10), strings.TrimSuffix(strings.Repeat(get("/1")+"¶", 10), "¶"), "200 200 200 200 200 200 200 200 200 200 keep"},
	{"two bodies at once", lengthed + lengthed, lengthed + "¶" + lengthed, "200 200 keep"},
	{"a refused one behind", get("/1") + "x\n\n", get("/1"), "200 400 close"},
	{"behind a refused one", "GET / HTTP/1.1\nHost: a b\n\n" + next, "", "400 close"},
	{"behind Connection: close", with("Connection: close\n") + next, with(""), "200 close"},
	{"behind HTTP/1.0", "GET / HTTP/1.0\nHost: t\n\n" + next, with(""), "200 close"},
	{"half closed", with("Connection: close\n") + "␄", with(""), "200 close | 499 close | close"}, // net/http takes it for a client that has left
	{"half closed behind a body", post("Connection: close\nContent-Length: 5\n", "hello␄"), lengthed, "200 close | 499 close | close"},
	{"gone", get("/") + "✂", get("/"), ""},
	{"gone behind a body", lengthed + "✂", lengthed, ""},
}

// An upgrade is for a WebSocket alone, by HTTP/1.1 and without a body.
var upgrades = []row{
	{"websocket", with(websocket), with(websocket), "101 tunnel"},
	{"bytes at once", with(websocket) + "\x81\x85\x00\x00\x00\x00hello", with(websocket) + "\x81\x85\x00\x00\x00\x00hello", "101 tunnel"},
	{"a request behind", with(websocket) + next, with(websocket) + wire(next), "101 tunnel"}, // the tunnel's bytes: they are no request of this connection's any more
	{"upper case", with(strings.ReplaceAll(websocket, "websocket\n", "WebSocket\n")), with(strings.ReplaceAll(websocket, "websocket\n", "WebSocket\n")), "101 tunnel"},
	{"a length of 0", with("Content-Length: 0\n" + websocket), with(websocket), "101 tunnel | 400"},
	{"a body", with("Content-Length: 5\n"+websocket) + "hello", "", "400 close | 400"},
	{"a body in chunks", with("Transfer-Encoding: chunked\n"+websocket) + "0\n\n", "", "400 close | 400"},
	{"a request as its body", with("Content-Length: 35\n"+websocket) + next, "", "400 close | 400"},
	{"a POST", post("Content-Length: 0\n"+websocket, ""), post("Content-Length: 0\nSec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\n", ""), "200 keep | 400"},
	{"in HTTP/1.0", "GET / HTTP/1.0\nHost: t\n" + websocket + "\n", with("Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\n"), "200 close | 400 close"},
	{"no key", with("Connection: Upgrade\nUpgrade: websocket\n"), "", "400"},
	{"a short key", with(strings.Replace(websocket, "AAAA", "", 1)), "", "400"},
	{"a key that is nonsense", with(strings.Replace(websocket, "AAAA", "????", 1)), "", "400"},
	{"two keys", with(websocket + "Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\n"), "", "400"},
	{"another version", with(strings.Replace(websocket, "13", "12", 1)), with(strings.Replace(websocket, "13", "12", 1)), "101 tunnel | 400 | 426"}, // the backend's to refuse
	{"not named by Connection", with(strings.Replace(websocket, "Connection: Upgrade", "Connection: keep-alive", 1)), with("Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\n"), "200 keep | 400"},
	{"Connection names a field beside", with(strings.Replace(websocket, "Upgrade\n", "Upgrade, A\nA: b\n", 1)), with(websocket), "101 tunnel"},
	{"Connection: close, Upgrade", with(strings.Replace(websocket, "Upgrade\n", "close, Upgrade\n", 1)), with(websocket), "101 tunnel | 400 close"},
	{"h2c", with(strings.Replace(websocket, "websocket\n", "h2c\n", 1)), with("Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\n"), "200 keep | 400"},
	{"h2c, websocket", with(strings.Replace(websocket, "Upgrade: ", "Upgrade: h2c, ", 1)), with(websocket), "101 tunnel | 400"},
	{"websocket, h2c over two lines", with(websocket + "Upgrade: h2c\n"), with(websocket), "101 tunnel | 400"},
	{"websocket/13", with(strings.Replace(websocket, "websocket\n", "websocket/13\n", 1)), with("Sec-Websocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\nSec-Websocket-Version: 13\n"), "200 keep | 400"},
	{"TLS/1.0", with("Connection: Upgrade\nUpgrade: TLS/1.0\n"), with(""), "200 keep | 400"},
	{"and Expect", with("Expect: 100-continue\n" + websocket), with(strings.Replace(websocket, "Sec", "Expect: 100-continue\nSec", 1)) + "‖" + with(websocket), "101 tunnel | 100 101 tunnel | 400 | 417"},
	{"and gone", with(websocket) + "✂", with(websocket), ""},
}

var tables = []struct {
	name string
	rows []row
}{
	{"target", allTargets()}, {"host", allHosts()}, {"framing", framing}, {"field", allFields()},
	{"trailer", allTrailers()}, {"method", methods}, {"manners", manners}, {"upgrade", upgrades},
}

func TestRequests(t *testing.T) {
	t.Parallel()
	for _, table := range tables {
		t.Run(table.name, func(t *testing.T) {
			t.Parallel()
			for _, r := range table.rows {
				to := newRig(t)
				t.Run(r.name, func(t *testing.T) {
					t.Parallel()
					r.run(t, to)
				})
			}
		})
	}
}
