{{/* Mutual TLS between services. A certificate names the service by DNS and by SPIFFE id. */}}

{{/* Whose services may call: two releases never trust each other, even by one authority. */}}
{{- define "echomesh.trustDomain" -}}
{{- printf "%s.%s" (include "echomesh.fullname" .) .Release.Namespace -}}
{{- end }}

{{/* The environment of a service: (dict "root" "name"). */}}
{{- define "echomesh.meshTlsEnvironment" -}}
{{- if .root.Values.meshTls.mode }}
ECHOMESH_MESH_TLS_DIR: /mesh-tls
ECHOMESH_MESH_TRUST_DOMAIN: {{ include "echomesh.trustDomain" .root }}
{{- end }}
{{- end }}

{{/* The volume with a service's certificate: (dict "root" "name"). */}}
{{- define "echomesh.meshTlsVolume" -}}
name: mesh-tls
secret:
  defaultMode: 0440
  {{- if eq .root.Values.meshTls.mode "job" }}
  secretName: {{ include "echomesh.keysSecret" .root }}
  items:
    - {key: {{ .name }}.tls.crt, path: tls.crt}
    - {key: {{ .name }}.tls.key, path: tls.key}
    - {key: mesh-ca.crt, path: ca.crt}
  {{- else }}
  secretName: {{ include "echomesh.name" . }}-mesh-tls
  items:
    - {key: tls.crt, path: tls.crt}
    - {key: tls.key, path: tls.key}
    - {key: ca.crt, path: ca.crt}
  {{- end }}
{{- end }}
