//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"slices"
	"testing"
)

// An element of a chart.
type element struct {
	XMLName xml.Name
	Class   string  `xml:"class,attr"`
	X       float64 `xml:"x,attr"`
	Y       float64 `xml:"y,attr"`
	CX      float64 `xml:"cx,attr"`
	CY      float64 `xml:"cy,attr"`
	Width   float64 `xml:"width,attr"`
	Anchor  string  `xml:"text-anchor,attr"`
	Text    string  `xml:",chardata"`
}

type drawing struct {
	Width    float64   `xml:"width,attr"`
	Height   float64   `xml:"height,attr"`
	Elements []element `xml:",any"`
}

func parsed(t *testing.T, chart []byte) *drawing {
	t.Helper()
	d := new(drawing)
	if err := xml.Unmarshal(chart, d); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *drawing) all(keep func(element) bool) []element {
	return slices.DeleteFunc(slices.Clone(d.Elements), func(e element) bool { return !keep(e) })
}

// width guesses how wide a text is in the widest of usual fonts.
func (e *element) width() float64 {
	size, letter := 12.0, 0.58
	switch e.Class {
	case "title":
		size, letter = 18, 0.7
	case "name":
		size, letter = 13, 0.7
	case "our":
		letter = 0.7
	case "note":
		size = 11
	}
	return float64(len([]rune(e.Text))) * size * letter
}

// wide is a report with the longest labels that there can be.
func wide(scaled bool) *report {
	r := &report{cases: scenes}
	for i, name := range []string{"Limpet", "nginx", "HAProxy", "Caddy", "ReverseProxy"} {
		r.Peers = append(r.Peers, reportedPeer{Name: name})
		for _, c := range scenes {
			m := result{Case: c.name, Peer: name, CPU: 9999 - float64(i), Opened: 999*1024 + float64(i), Used: 1e6}
			r.Medians = append(r.Medians, m)
		}
	}
	if scaled {
		r.Scaling = &scaling{}
		for _, n := range []int{10, 100, 1000} {
			r.Scaling.Requests = append(r.Scaling.Requests, result{CPU: 1234})
			r.Scaling.Messages = append(r.Scaling.Messages, result{Case: fmt.Sprint(n), CPU: 9})
			r.Scaling.Baseline = append(r.Scaling.Baseline, result{CPU: 10})
			r.Scaling.Backends = append(r.Scaling.Backends, backcost{Backends: n, Pick: 2 * float64(n)})
		}
	}
	return r
}

// Nothing is cut off, and no text is on another or on a bar.
func TestChartLayout(t *testing.T) {
	for _, tt := range []struct {
		name   string
		report *report
		texts  int
	}{
		{"all", wide(true), 2 + 19*(2+2*5) + 2 + 3*(2+2*3)},
		{"without scaling", wide(false), 2 + 19*(2+2*5)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := parsed(t, tt.report.chart())
			texts := d.all(func(e element) bool { return e.XMLName.Local == "text" })
			if len(texts) != tt.texts {
				t.Errorf("%d texts, want %d", len(texts), tt.texts)
			}
			for i, e := range texts {
				left := e.left()
				if left < 0 || left+e.width() > d.Width-2 || e.Y < 12 || e.Y > d.Height-8 {
					t.Errorf("%q is cut off", e.Text)
				}
				for _, o := range texts[i+1:] {
					if diff := e.Y - o.Y; diff < 11 && diff > -11 && left < o.left()+o.width() && o.left() < left+e.width() {
						t.Errorf("%q and %q overlap", e.Text, o.Text)
					}
				}
				for _, b := range d.all(func(b element) bool { return b.XMLName.Local == "rect" && b.Class != "card" }) {
					if e.Y > b.Y && e.Y < b.Y+17 && left < b.X+b.Width && b.X < left+e.width() {
						t.Errorf("%q is on a bar", e.Text)
					}
				}
			}
		})
	}
}

func (e *element) left() float64 {
	if e.Anchor == "middle" {
		return e.X - e.width()/2
	}
	return e.X
}

func TestChartShowsTheFigures(t *testing.T) {
	r := &report{
		cases: []*scene{{name: "GET", does: "an answer"}},
		Peers: []reportedPeer{{Name: "Limpet"}, {Name: "nginx"}, {Name: "HAProxy", Missing: true}, {Name: "Caddy"}},
		Medians: []result{
			{Case: "GET", Peer: "Limpet", CPU: 20}, {Case: "GET", Peer: "nginx", CPU: 40}, {Case: "GET", Peer: "Caddy", CPU: 80, Errors: 1},
		},
		Scaling: &scaling{
			Requests: []result{{CPU: 10}, {CPU: 20}, {CPU: 20}},
			Messages: []result{{Case: "100", CPU: 5}, {Case: "10000", CPU: 5}},
			Backends: []backcost{{Backends: 10}, {Backends: 100}, {Backends: 1000}},
		},
	}
	chart := r.chart()
	d := parsed(t, chart)
	for _, want := range []struct {
		class string
		width float64
	}{{"ours", 112 / 2}, {"base", 112}, {"bar", 0}} {
		bars := d.all(func(e element) bool { return e.XMLName.Local == "rect" && e.Class == want.class })
		if len(bars) != 1 || bars[0].Width != want.width {
			t.Errorf("bars of class %s: %+v, want one of %v", want.class, bars, want.width)
		}
	}
	for _, text := range []string{">20.0 µs<", ">40.0 µs<", ">errors<", ">1,000<", ">10,000<"} {
		if !bytes.Contains(chart, []byte(text)) {
			t.Errorf("the chart lacks %s", text)
		}
	}
	dots := d.all(func(e element) bool { return e.XMLName.Local == "circle" })
	if len(dots) != 8 {
		t.Fatalf("%d dots, want 8", len(dots))
	}
	axis := d.all(func(e element) bool { return e.XMLName.Local == "text" && e.Text == "10" })[0].Y - 16
	if a, b, c := dots[0], dots[1], dots[2]; b.CX-a.CX != c.CX-b.CX || b.CY != c.CY || axis-b.CY != 2*(axis-a.CY) {
		t.Errorf("a tenfold isn't always as far, or the height doesn't begin at 0: %v, axis %v", dots[:3], axis)
	}
}
