{{- define "finetune.labels" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "finetune.selector" -}}
app.kubernetes.io/name: finetune-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "finetune.name" -}}
{{- if contains "finetune-operator" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-finetune-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{/* Namespaces by name; none where they are chosen otherwise. */}}
{{- define "finetune.namespaces" -}}
{{- if kindIs "slice" .Values.watchNamespaces -}}
{{ .Values.watchNamespaces | default (list .Release.Namespace) | toJson }}
{{- else -}}
[]
{{- end -}}
{{- end }}

{{- define "finetune.watchSelector" -}}
{{- if kindIs "map" .Values.watchNamespaces -}}
{{- $labels := list -}}
{{- range $key, $value := .Values.watchNamespaces.matchLabels -}}
{{- $labels = append $labels (printf "%s=%s" $key $value) -}}
{{- end -}}
{{ join "," $labels }}
{{- end -}}
{{- end }}
