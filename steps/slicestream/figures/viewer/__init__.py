"""The viewer's folder: a page, NiiVue, and one script file per series with its voxels, masks and nodules."""
