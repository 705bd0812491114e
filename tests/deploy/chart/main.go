// Renders a chart as `helm template` does, for the tests: the same template language and functions and the same check of
// values, without what talks to a cluster. Building Helm itself takes minutes, this takes seconds.
//
//	chart DIRECTORY RELEASE [VALUES.yaml]
//
// What it cannot do, and our charts do not use: hooks, `lookup`, remote dependencies, `import-values`.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig/v3"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"sigs.k8s.io/yaml"
)

type values = map[string]any

type chart struct {
	directory string
	meta      values
	defaults  values
	children  []*chart
}

func main() {
	if len(os.Args) < 3 {
		fail(errors.New("usage: chart DIRECTORY RELEASE [VALUES.yaml]"))
	}
	root, err := load(os.Args[1])
	fail(err)
	given := values{}
	if len(os.Args) > 3 {
		fail(readYaml(os.Args[3], &given))
	}
	out, err := render(root, os.Args[2], given)
	fail(err)
	fmt.Print(out)
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func readYaml(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func load(directory string) (*chart, error) {
	loaded := &chart{directory: directory}
	if err := readYaml(filepath.Join(directory, "Chart.yaml"), &loaded.meta); err != nil {
		return nil, err
	}
	for _, field := range []string{"apiVersion", "name", "version"} {
		if loaded.meta[field] == nil {
			return nil, fmt.Errorf("%s: Chart.yaml has no %s", directory, field)
		}
	}
	if err := readYaml(filepath.Join(directory, "values.yaml"), &loaded.defaults); err != nil {
		return nil, err
	}
	dependencies, _ := loaded.meta["dependencies"].([]any)
	for _, dependency := range dependencies {
		repository, _ := dependency.(values)["repository"].(string)
		path, isFile := strings.CutPrefix(repository, "file://")
		if !isFile {
			return nil, fmt.Errorf("%s: only file:// dependencies are understood, not %q", directory, repository)
		}
		child, err := load(filepath.Join(directory, path))
		if err != nil {
			return nil, err
		}
		if wanted := dependency.(values)["version"]; wanted != child.meta["version"] {
			return nil, fmt.Errorf("%s wants %v %v, and it is %v", directory, child.meta["name"], wanted, child.meta["version"])
		}
		loaded.children = append(loaded.children, child)
	}
	return loaded, nil
}

// over lays one map over another, deeply; null takes a key away, as with Helm.
func over(below, above values) values {
	merged := values{}
	for key, value := range below {
		merged[key] = value
	}
	for key, value := range above {
		inner, isMap := value.(values)
		lower, wasMap := merged[key].(values)
		switch {
		case value == nil:
			delete(merged, key)
		case isMap && wasMap:
			merged[key] = over(lower, inner)
		default:
			merged[key] = value
		}
	}
	return merged
}

func check(loaded *chart, given values) error {
	path := filepath.Join(loaded.directory, "values.schema.json")
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("values.schema.json", schema); err != nil {
		return err
	}
	compiled, err := compiler.Compile("values.schema.json")
	if err != nil {
		return err
	}
	asJSON, err := json.Marshal(given)
	if err != nil {
		return err
	}
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		return err
	}
	return compiled.Validate(document)
}

type file struct {
	name string
	of   values
}

func render(root *chart, release string, given values) (string, error) {
	all := template.New("all").Option("missingkey=zero")
	all.Funcs(functions(all))
	var files []file
	if err := gather(all, root, release, over(root.defaults, given), &files); err != nil {
		return "", err
	}
	sort.Slice(files, func(a, b int) bool { return files[a].name < files[b].name })
	var out strings.Builder
	for _, one := range files {
		var text bytes.Buffer
		if err := all.ExecuteTemplate(&text, one.name, one.of); err != nil {
			return "", err
		}
		// What Helm makes of a value that is not there.
		rendered := strings.TrimSpace(strings.ReplaceAll(text.String(), "<no value>", ""))
		if rendered == "" || strings.HasSuffix(one.name, ".txt") {
			continue
		}
		var document any
		if err := yaml.UnmarshalStrict([]byte(rendered), &document); err != nil {
			return "", fmt.Errorf("%s: %w\n%s", one.name, err, rendered)
		}
		fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", one.name, rendered)
	}
	return out.String(), nil
}

func gather(all *template.Template, loaded *chart, release string, given values, files *[]file) error {
	if err := check(loaded, given); err != nil {
		return fmt.Errorf("values of %v: %w", loaded.meta["name"], err)
	}
	scope := values{
		"Values": given,
		"Chart": values{"Name": loaded.meta["name"], "Version": loaded.meta["version"], "AppVersion": loaded.meta["appVersion"]},
		"Release": values{"Name": release, "Namespace": "default", "Service": "Helm", "IsInstall": true, "IsUpgrade": false},
	}
	paths, err := filepath.Glob(filepath.Join(loaded.directory, "templates", "*"))
	if err != nil {
		return err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%v/templates/%s", loaded.meta["name"], filepath.Base(path))
		if _, err := all.New(name).Parse(string(text)); err != nil {
			return err
		}
		if !strings.HasPrefix(filepath.Base(path), "_") {
			*files = append(*files, file{name, scope})
		}
	}
	for _, child := range loaded.children {
		theirs, _ := given[child.meta["name"].(string)].(values)
		if err := gather(all, child, release, over(child.defaults, theirs), files); err != nil {
			return err
		}
	}
	return nil
}

func functions(all *template.Template) template.FuncMap {
	known := sprig.TxtFuncMap()
	delete(known, "env")
	delete(known, "expandenv")
	known["toYaml"] = func(value any) string {
		text, err := yaml.Marshal(value)
		fail(err)
		return strings.TrimSuffix(string(text), "\n")
	}
	known["include"] = func(name string, of any) (string, error) {
		var text strings.Builder
		err := all.ExecuteTemplate(&text, name, of)
		return text.String(), err
	}
	known["required"] = func(message string, value any) (any, error) {
		if value == nil || value == "" {
			return nil, errors.New(message)
		}
		return value, nil
	}
	return known
}
