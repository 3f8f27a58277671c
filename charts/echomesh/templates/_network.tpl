{{/* Egress to somewhere outside the release: the values of one of networkPolicy.egress. */}}
{{- define "echomesh.egress" -}}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Egress to a listener of a service of the release: (dict "root" "name" "listener"). */}}
{{- define "echomesh.egressTo" -}}
- to:
    - podSelector:
        matchLabels: {{- include "echomesh.selector" . | nindent 10 }}
  ports: [{port: {{ .listener }}, protocol: TCP}]
{{- end }}

{{/* Models pods that routing looks for, which need not be the release's own. */}}
{{- define "echomesh.anyModels" -}}
app.kubernetes.io/part-of: echomesh
app.kubernetes.io/component: models
{{- end }}

{{- define "echomesh.dns" -}}
- ports:
    {{- range .Values.networkPolicy.egress.dns.ports }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.egress.dns.to }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Egress to Postgres: the chart's own, or wherever the values say. */}}
{{- define "echomesh.egressDatabase" -}}
{{- if .Values.demo.postgres.enabled -}}
{{- include "echomesh.egressTo" (dict "root" . "name" "postgres" "listener" "postgres") -}}
{{- else -}}
{{- include "echomesh.egress" .Values.networkPolicy.egress.database -}}
{{- end -}}
{{- end }}
