package metrics_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/need"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

// checker checks expressions against the metrics that there are.
type checker struct {
	labels map[string][]string        // of each metric
	values map[string]map[string]bool // of each label of each metric, as metric/label
	used   map[string]bool            // metrics that some expression names
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	c := &checker{labels: described(t), values: make(map[string]map[string]bool), used: make(map[string]bool)}
	memory := &bus.Memory{}
	rooms, err := hub.New(memory, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, 1, limpet.Options{Bus: memory}, &metrics.Options{Store: &affinity.Redis{}, Bus: memory, Hub: rooms, Limit: &limpet.Limit{}, Origin: &limpet.Origin{}})
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				key := f.GetName() + "/" + l.GetName()
				if c.values[key] == nil {
					c.values[key] = make(map[string]bool)
				}
				c.values[key][l.GetValue()] = true
			}
		}
	}
	return c
}

// target are the labels that Prometheus and WrapRegistererWith add.
var target = []string{"job", "instance", "gateway"}

// check reports what an expression names that doesn't exist. It returns the labels that the
// result may have.
func (c *checker) check(t *testing.T, where, expr string) (labels []string) {
	t.Helper()
	q, err := parseQuery(expr)
	if err != nil || len(q.metrics) == 0 {
		t.Errorf("%s: %q: %v", where, expr, err)
	}
	labels = append(labels, target...)
	for _, name := range q.metrics {
		base := c.base(name)
		if base == "" {
			t.Errorf("%s: there is no metric %s", where, name)
			continue
		}
		c.used[base] = true
		labels = append(labels, c.labels[base]...)
		if base != name {
			labels = append(labels, "le")
		}
	}
	for _, s := range q.selects {
		if slices.Contains(target, s.label) {
			continue
		}
		base := c.base(s.metric)
		if base != "" && !slices.Contains(c.labels[base], s.label) {
			t.Errorf("%s: %s has no label %s", where, s.metric, s.label)
		}
		known := c.values[base+"/"+s.label]
		for value := range strings.SplitSeq(s.value, "|") {
			if len(known) > 0 && !known[value] && s.label != "code" { // not all codes are there from the start
				t.Errorf("%s: %s has no %s %q", where, s.metric, s.label, value)
			}
		}
	}
	for _, label := range q.groups {
		if !slices.Contains(labels, label) {
			t.Errorf("%s: no metric of %q has a label %s", where, expr, label)
		}
	}
	return labels
}

// base returns the name of the metric that a name in an expression belongs to, "" for none.
func (c *checker) base(name string) string {
	for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
		base, ok := strings.CutSuffix(name, suffix)
		if _, known := c.labels[base]; ok && known && (suffix == "" || strings.HasSuffix(base, "_seconds")) {
			return base
		}
	}
	return ""
}

// What the dashboard shows exists, and it shows most of what there is.
func TestDashboard(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	type place struct{ X, Y, W, H int }
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Type    string
			GridPos place
			Targets []struct{ RefID, Expr, LegendFormat string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
		Annotations struct {
			List []struct{ Name, Expr, TitleFormat string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	c := newChecker(t)
	inBraces := regexp.MustCompile(`\{\{\s*(\w+)\s*\}\}`)
	legend := func(where, format string, labels []string) {
		for _, m := range inBraces.FindAllStringSubmatch(format, -1) {
			if !slices.Contains(labels, m[1]) {
				t.Errorf("%s: the legend has a label %s that the expression hasn't", where, m[1])
			}
		}
	}
	taken := make(map[[2]int]string)
	ids := make(map[int]bool)
	for _, p := range dashboard.Panels {
		if ids[p.ID] {
			t.Errorf("%s: its ID %d is another panel's", p.Title, p.ID)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s: its place is %s's, or beside the grid", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			legend(p.Title, target.LegendFormat, c.check(t, p.Title, target.Expr))
		}
	}
	for _, a := range dashboard.Annotations.List {
		legend(a.Name, a.TitleFormat, c.check(t, a.Name, a.Expr))
	}
	for _, v := range dashboard.Templating.List {
		if m := regexp.MustCompile(`label_values\((\w+)`).FindStringSubmatch(v.Definition); m != nil && c.base(m[1]) == "" {
			t.Errorf("variable %s: there is no metric %s", v.Name, m[1])
		}
	}
	if shown, all := len(c.used), len(c.labels); shown < all*2/3 {
		t.Errorf("only %d of %d metrics are shown", shown, all)
	}
}

// A rule is one of alerts.yml.
type rule struct{ name, expr, texts string }

// readRules reads as much of YAML as alerts.yml needs.
func readRules(t *testing.T) (rules []rule) {
	t.Helper()
	text, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	folded := false // the lines of an expression follow
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		last := len(rules) - 1
		switch {
		case key == "- alert":
			rules = append(rules, rule{name: value})
		case folded && strings.HasPrefix(line, "          "):
			rules[last].expr += strings.TrimSpace(line) + " "
			continue
		case key == "expr":
			rules[last].expr = strings.Trim(value, "|")
		case key == "summary", key == "description":
			rules[last].texts += value + "\n"
		}
		folded = key == "expr" && value == "|"
	}
	return rules
}

// What the alerts look at exists, and so do the labels that they name.
func TestAlerts(t *testing.T) {
	t.Parallel()
	rules := readRules(t)
	if len(rules) < 15 {
		t.Fatalf("only %d rules were read", len(rules))
	}
	c := newChecker(t)
	label := regexp.MustCompile(`\$labels\.(\w+)`)
	names := make(map[string]bool)
	for _, r := range rules {
		if names[r.name] || strings.Count(r.texts, "\n") != 2 {
			t.Errorf("%s: there are two, or it lacks a summary or a description", r.name)
		}
		names[r.name] = true
		labels := c.check(t, r.name, r.expr)
		for _, m := range label.FindAllStringSubmatch(r.texts, -1) {
			if !slices.Contains(labels, m[1]) {
				t.Errorf("%s: its text names a label %s that the expression hasn't", r.name, m[1])
			}
		}
	}
}

// Prometheus takes the rules.
func TestAlertsByPromtool(t *testing.T) {
	t.Parallel()
	promtool := need.Program(t, "promtool", "promtool")
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", "alerts.yml").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
