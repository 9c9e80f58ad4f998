"""A synthetic chest with nodules whose volume, place and HU are known. numpy only; coordinates in mm, LPS."""
