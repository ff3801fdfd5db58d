// Command generator makes api/gen from api/proto: it compiles the protos in
// Go and runs the protoc plugins that its go.mod names, so that no binary is
// fetched. With -check it writes nothing and fails if a file is not up to
// date.
//
// It is a module of its own, so that the compiler and the plugins stay out of
// the main module's dependencies. Run it in its own directory:
//
//	go run . [-check]
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	_ "google.golang.org/genproto/googleapis/rpc/status" // google/rpc/status.proto
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	protoDir = "../../proto"
	outDir   = ".."
	goModule = "tweedle/edges/api/gen"
)

type plugin struct {
	tool  string
	param string
	files []string
}

func plugins() []plugin {
	all := []string{"rpc/api/v1/poet.proto", "spacemesh/v1/gateway.proto", "tweedle/poet/v1/admin.proto"}
	rest := ",grpc_api_configuration=" + protoDir + "/poet_rest.yaml"
	return []plugin{
		{"protoc-gen-go", "module=" + goModule, all},
		{"protoc-gen-go-grpc", "module=" + goModule, all},
		{"protoc-gen-grpc-gateway", "module=" + goModule + rest, all[:1]},
		{"protoc-gen-openapiv2", "allow_merge=true,merge_file_name=poetpb/poet,openapi_configuration=" + protoDir + "/poet_openapi.yaml" + rest, all[:1]},
	}
}

func main() {
	check := flag.Bool("check", false, "only tell whether the generated files are up to date")
	flag.Parse()
	if err := run(*check); err != nil {
		fmt.Fprintln(os.Stderr, "generator:", err)
		os.Exit(1)
	}
}

func run(check bool) error {
	for _, p := range plugins() {
		request, err := compile(p)
		if err != nil {
			return err
		}
		files, err := p.run(request)
		if err != nil {
			return err
		}
		for _, f := range files {
			if err := put(filepath.Join(outDir, f.GetName()), []byte(f.GetContent()), check); err != nil {
				return err
			}
		}
	}
	return nil
}

func put(path string, content []byte, check bool) error {
	if check {
		if old, err := os.ReadFile(path); err != nil || !bytes.Equal(old, content) {
			return fmt.Errorf("%s is not up to date: run the generator", path)
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o644)
}

// compile returns what protoc would send to the plugin.
func compile(p plugin) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(protocompile.CompositeResolver{
			&protocompile.SourceResolver{ImportPaths: []string{protoDir}},
			protocompile.ResolverFunc(func(path string) (protocompile.SearchResult, error) {
				d, err := protoregistry.GlobalFiles.FindFileByPath(path)
				return protocompile.SearchResult{Desc: d}, err
			}),
		}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), p.files...)
	if err != nil {
		return nil, err
	}
	return &pluginpb.CodeGeneratorRequest{
		FileToGenerate: p.files,
		Parameter:      proto.String(p.param),
		ProtoFile:      withImports(files),
	}, nil
}

// withImports lists each file after what it imports.
func withImports(files linker.Files) []*descriptorpb.FileDescriptorProto {
	var list []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		list = append(list, protodesc.ToFileDescriptorProto(f))
	}
	for _, f := range files {
		add(f)
	}
	return list
}

func (p plugin) run(request *pluginpb.CodeGeneratorRequest) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	in, err := proto.Marshal(request)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "tool", p.tool)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.tool, err)
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &response); err != nil {
		return nil, fmt.Errorf("%s: %w", p.tool, err)
	}
	if response.Error != nil {
		return nil, fmt.Errorf("%s: %s", p.tool, strings.TrimSpace(response.GetError()))
	}
	return response.GetFile(), nil
}
