{% set words = filter_values('words', remove_filter=True) or ['the difference between two dates'] %}
{% set kind = filter_values('kind', remove_filter=True) %}
SELECT s.rank, round(s.similarity::numeric, 3) AS similarity, d.name, d.kind, d.package, d.summary, {{ words[:1]|where_in }} AS words
FROM pgmrl_demo.docstrings_search_text(
    {{ words[:1]|where_in }}, 50 {% if kind %}, kind => {{ kind[:1]|where_in }} {% endif %}
) AS s
JOIN pgmrl_demo.docstrings AS d USING (id)
