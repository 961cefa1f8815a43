"""INT8: ranges, Q/DQ nodes, comparison with fp32."""
