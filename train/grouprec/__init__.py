"""Group recommendation without group labels (ITR): find groups of users, then recommend items to them."""
