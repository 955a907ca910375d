"""What was seen, kept: the journal (the one truth), the run folder, Arrow tables, the MLflow
mirror. Only the driver writes.

Import what is needed from its module: pyarrow costs a good part of a second, and mlflow is imported
by the mirror's thread alone.
"""
