package metrics_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A query is what an expression of PromQL names: metrics, with the labels that it selects
// by, and labels that it groups or matches by.
type query struct {
	metrics []string
	selects []selector
	groups  []string
}

type selector struct{ metric, label, op, value string }

// promToken is one token of PromQL: a string, a range such as [5m], a number or duration, a
// name, or anything else, one character at a time apart from the operators of matchers.
var promToken = regexp.MustCompile(`^(?:"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[0-9.]+[a-z]*|[a-zA-Z_:][\w:]*|=~|!~|!=|[^\s])`)

var (
	promWords = strings.Fields("and or unless bool offset atan2 inf nan")
	promLists = strings.Fields("by without on ignoring group_left group_right")
)

// parseQuery finds the names in an expression. It isn't a parser: what is wrong otherwise
// it doesn't notice.
func parseQuery(expr string) (q query, err error) {
	var tokens []string
	for rest := strings.TrimSpace(expr); rest != ""; rest = strings.TrimSpace(rest) {
		token := promToken.FindString(rest)
		tokens, rest = append(tokens, token), rest[len(token):]
	}
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	depth := 0
	for i := 0; i < len(tokens); i++ {
		token := tokens[i]
		isName := regexp.MustCompile(`^[a-zA-Z_:]`).MatchString(token)
		switch {
		case token == "(":
			depth++
		case token == ")":
			depth--
		case !isName:
		case slices.Contains(promLists, token):
			if at(i+1) != "(" {
				return q, fmt.Errorf("%s without a list", token)
			}
			for i += 2; at(i) != ")"; i++ {
				if at(i) == "" {
					return q, fmt.Errorf("a list has no end")
				}
				if at(i) != "," {
					q.groups = append(q.groups, at(i))
				}
			}
		case slices.Contains(promWords, token):
		case at(i+1) == "(" || slices.Contains(promLists, at(i+1)) && at(i+2) == "(" && isAggregation(token):
		case at(i+1) == "{":
			q.metrics = append(q.metrics, token)
			for i += 2; at(i) != "}"; i++ {
				if at(i) == "," {
					continue
				}
				value := at(i + 2)
				if len(value) < 2 || value[0] != '"' {
					return q, fmt.Errorf("%s: a matcher of %s has no string", token, at(i))
				}
				q.selects = append(q.selects, selector{token, at(i), at(i + 1), value[1 : len(value)-1]})
				i += 2
			}
		default:
			q.metrics = append(q.metrics, token)
		}
	}
	if depth != 0 {
		return q, fmt.Errorf("%d parentheses too many or too few", depth)
	}
	return q, nil
}

func isAggregation(name string) bool {
	return slices.Contains(strings.Fields("sum min max avg count topk bottomk quantile stddev group"), name)
}

func TestParseQuery(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ expr, want string }{
		{`up`, `{[up] [] []}`},
		{`sum by (a, b) (rate(x_total{c="d", e=~"f|g"}[5m])) / ignoring (h) 2 * y > 0.5`, `{[x_total y] [{x_total c = d} {x_total e =~ f|g}] [a b h]}`},
		{`histogram_quantile(0.99, sum(rate(x_bucket[$__rate_interval])) by (le))`, `{[x_bucket] [] [le]}`},
		{`x unless x offset 15m or time() > on (a) group_left () z + 60`, `{[x x z] [] [a]}`},
	} {
		q, err := parseQuery(tt.expr)
		if got := fmt.Sprint(q); got != tt.want || err != nil {
			t.Errorf("%s: %s, %v, want %s", tt.expr, got, err, tt.want)
		}
	}
	for _, expr := range []string{`sum(x`, `sum by a (x)`, `x{a}`, `sum by (a`} {
		if q, err := parseQuery(expr); err == nil {
			t.Errorf("%s: no error, %v", expr, q)
		}
	}
}
